"""All limits of a node, by kind and name."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sagad_server.guard.bucket import Rate
from sagad_server.guard.limit import Kind, Later, Limit, LimitObserver, Subject

MOST_KNOWN = 10_000
"""Names of a kind that are told apart; one that was not met for longest is then as good as new."""
_SOON_S = 0.01


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one kind."""

    default: Rate | None = None
    """Of each name that has none of its own."""
    overrides: Mapping[str, Rate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Denied:
    """There was no token."""

    subject: Subject
    later: Later


class RateLimits:
    """Made for what the configuration limits; what has no limit costs a look into a dictionary."""

    def __init__(
        self, rates: Mapping[Kind, Rates], new_limit: Callable[[Subject], Limit], observer: LimitObserver
    ) -> None:
        self.observer = observer
        self._rates = rates
        self._new_limit = new_limit
        self._known: dict[Kind, OrderedDict[str, Limit]] = {kind: OrderedDict() for kind in Kind}

    def limit(self, kind: Kind, name: str) -> Limit | None:
        """The limit of a name, if it has one."""
        known = self._known[kind]
        limit = known.get(name)
        if limit is not None:
            known.move_to_end(name)
            return limit
        rates = self._rates.get(kind, Rates())
        rate = rates.overrides.get(name, rates.default)
        if rate is None:
            return None
        limit = known[name] = self._new_limit(Subject(kind, name, rate))
        if len(known) > MOST_KNOWN:
            known.popitem(last=False)
        return limit

    async def admit(self, client: str, definition: str) -> Denied | None:
        """Takes a token of each for a new saga, or none and says which one lacks."""
        taken: list[Limit] = []
        for limit in (self.limit(Kind.CLIENT, client), self.limit(Kind.DEFINITION, definition)):
            if limit is None:
                continue
            later = None if limit.take() else await _asked(limit)
            if later is not None:
                for other in taken:
                    other.give_back()
                return Denied(limit.subject, later)
            taken.append(limit)
        return None


async def _asked(limit: Limit) -> Later | None:
    """None: a token is taken."""
    answer: asyncio.Future[Later | None] = asyncio.get_running_loop().create_future()

    def told(later: Later | None) -> None:
        if answer.done():  # the caller has left
            return
        if later is None and not limit.take():  # they have just lapsed
            later = Later(_SOON_S)
        answer.set_result(later)

    limit.ask(1, told)
    return await answer
