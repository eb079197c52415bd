"""The journal of a MemoryDatabase."""

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, replace

from sagad_server.storage.journal import Cursor, JournalPage, JournalRow, journal_changed
from sagad_server.storage.store import EventRow, Key, SagaRow

_HISTORY = "memory"


@dataclass(slots=True, frozen=True)
class _Entry:
    cursor: Cursor
    saga: SagaRow
    """The row itself, as it changes."""
    event: EventRow
    parking_mask: int
    category: int


class MemoryJournal:
    """Events in the order of their commits: each can be read as soon as it is there."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._xid = 0
        self._position = 0
        self._purged: dict[str, Cursor] = {}
        """The last event of each namespace that was purged."""

    def begin(self) -> None:
        """What is appended from now on belongs to the next transaction."""
        self._xid += 1

    def append(self, saga: SagaRow, event: EventRow) -> None:
        self._position += 1
        cursor = Cursor(self._xid, self._position, _HISTORY)
        self._entries.append(_Entry(cursor, saga, event, saga.parking_mask, saga.category))

    def end(self) -> Cursor:
        """See `Store.journal_end`."""
        last = [entry.cursor for entry in self._entries[-1:]]
        return max([Cursor(0, 0, _HISTORY), *last, *self._purged.values()])

    def read(self, after: Cursor, limit: int) -> JournalPage:
        """See `Store.read_journal`."""
        begin = bisect_right(self._entries, after, key=lambda entry: entry.cursor)
        is_known = after.xid == 0 or (begin > 0 and self._entries[begin - 1].cursor == after)
        if after.history != _HISTORY and not is_known:
            raise journal_changed()
        found = self._entries[begin : begin + limit]
        cursor = found[-1].cursor if found else replace(after, history=_HISTORY)
        purged = [namespace for namespace, last in self._purged.items() if last > after]
        more = begin + limit < len(self._entries)
        return JournalPage([_row(entry) for entry in found], cursor, more, purged)

    def purge(self, keys: Collection[Key]) -> None:
        """Deletes the events of these sagas."""
        for entry in self._entries:
            if entry.saga.key in keys:
                namespace = entry.saga.namespace
                self._purged[namespace] = max(entry.cursor, self._purged.get(namespace, entry.cursor))
        self._entries = [entry for entry in self._entries if entry.saga.key not in keys]


def _row(entry: _Entry) -> JournalRow:
    saga = entry.saga
    return JournalRow(
        cursor=entry.cursor,
        event=replace(entry.event, payload=b""),
        parking_mask=entry.parking_mask,
        category=entry.category,
        definition_id=saga.definition_id,
        version=saga.version,
        labels=saga.labels,
        create_time=saga.create_time,
        end_time=saga.end_time,
    )
