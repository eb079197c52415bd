"""Who wants what of the journal. By what filters pin, a transition is held against few of them, and each once."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import fields
from typing import TypeAlias

from sagad_server.engine.follower import Follower
from sagad_server.engine.saga_then import SagaThen
from sagad_server.storage.journal import JournalRow
from sagad_server.storage.selection import SagaFilter, selects

Pin: TypeAlias = tuple[str, ...]
"""What every transition has that a filter selects: (namespace, label, value), (namespace, definition_id), or
(namespace,)."""


class Audience:
    """The followers with one and the same filter."""

    def __init__(self, namespace: str, selection: SagaFilter, pin: Pin) -> None:
        self.namespace = namespace
        self.selection = selection
        self.pin = pin
        self.followers: dict[Follower, None] = {}
        self._selects_all = selection == SagaFilter()

    def wanted(self, rows: list[SagaThen]) -> list[SagaThen]:
        """Of those with the pin."""
        return rows if self._selects_all else [row for row in rows if selects(self.selection, row)]


class Audiences:
    """All followers of a node."""

    def __init__(self) -> None:
        self._by_wish: dict[Hashable, Audience] = {}
        self._by_pin: dict[Pin, dict[Audience, None]] = {}
        self._of: dict[Follower, Audience] = {}

    def __iter__(self) -> Iterator[Follower]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def join(self, follower: Follower, namespace: str, selection: SagaFilter) -> None:
        wish = _wish(namespace, selection)
        audience = self._by_wish.get(wish)
        if audience is None:
            # The one of its labels that fewest others have taken: a label that all have tells nothing.
            pin = min(_pins(namespace, selection), key=lambda pin: len(self._by_pin.get(pin, ())))
            audience = self._by_wish[wish] = Audience(namespace, selection, pin)
            self._by_pin.setdefault(pin, {})[audience] = None
        audience.followers[follower] = None
        self._of[follower] = audience

    def leave(self, follower: Follower) -> None:
        audience = self._of.pop(follower)
        del audience.followers[follower]
        if not audience.followers:
            del self._by_wish[_wish(audience.namespace, audience.selection)]
            others = self._by_pin[audience.pin]
            del others[audience]
            if not others:
                del self._by_pin[audience.pin]

    def within(self, namespace: str) -> list[Follower]:
        return [follower for follower, audience in self._of.items() if audience.namespace == namespace]

    def offers(self, rows: Iterable[JournalRow]) -> list[tuple[Audience, list[SagaThen]]]:
        """Those who may want some, each with what has its pin, in order."""
        pinned: defaultdict[Pin, list[SagaThen]] = defaultdict(list)
        for row in rows:
            then, namespace = SagaThen(row), row.event.namespace
            labels = ((namespace, *label) for label in row.labels.items())
            for pin in ((namespace,), (namespace, row.definition_id), *labels):
                if pin in self._by_pin:
                    pinned[pin].append(then)
        return [(audience, offered) for pin, offered in pinned.items() for audience in self._by_pin[pin]]


def _pins(namespace: str, selection: SagaFilter) -> list[Pin]:
    """Any of them will do."""
    if selection.labels:
        return [(namespace, *label) for label in selection.labels.items()]
    return [(namespace, selection.definition_id) if selection.definition_id else (namespace,)]


def _wish(namespace: str, selection: SagaFilter) -> Hashable:
    others = (getattr(selection, field.name) for field in fields(selection) if field.name != "labels")
    return (namespace, frozenset(selection.labels.items()), *others)
