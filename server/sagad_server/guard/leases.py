"""Limits of all nodes together: each node takes tokens ahead from the shared buckets, as many as it has just used."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from sagad_server.engine.ports import Clock, Random
from sagad_server.guard.bucket import LEASE_US, Grant
from sagad_server.guard.limit import Later, LimitObserver, Subject, Told

log = structlog.get_logger(__name__)

_LEASE_S = LEASE_US / 1_000_000
_MOST_AT_ONCE = 256
_FIRST_PROBE_S = 0.25
_LAST_PROBE_S = 5.0


class RedisAway(Exception):  # noqa: N818 - it is what is the case
    """Redis does not answer in time, or not as it should. The message says why, without any secret."""


@dataclass(frozen=True, slots=True)
class Ask:
    """For tokens of one subject: see `Bucket.lease`."""

    subject: Subject
    need: int
    ahead: int
    returned: int


class SharedBuckets(Protocol):
    """The buckets that all nodes take from."""

    async def lease(self, asks: Sequence[Ask]) -> list[Grant]:
        """One grant for each, in one round trip. Raises RedisAway."""

    async def ping(self) -> None:
        """Raises RedisAway."""


@dataclass(slots=True)
class _Lot:
    """Tokens at hand."""

    count: int = 0
    lapse_s: float = 0.0


class LeasedLimit:
    """A `Limit`. Tokens that lapse unused go back with the next asking."""

    def __init__(self, subject: Subject, leases: "Leases", clock: Clock) -> None:
        self.subject = subject
        self._leases = leases
        self._clock = clock
        self._ahead = _Lot()
        self._needed = _Lot()
        self._used = 0
        """Since the last asking."""
        self._expected = 0.0
        self._asked_s = clock.monotonic()
        self._token_at_s = 0.0
        """When the bucket has a token, as far as this node knows."""
        self._ask_again_at_s = 0.0
        """Not before; but soon, since others may give tokens back, and Redis may be away by now."""
        self._waiting: list[tuple[int, Told]] = []

    def take(self) -> bool:
        now_s = self._clock.monotonic()
        for lot in (self._needed, self._ahead):
            if lot.count and now_s < lot.lapse_s:
                lot.count -= 1
                self._used += 1
                return True
        return self._leases.lets_all_through

    def give_back(self) -> None:
        if not self._leases.lets_all_through:
            self._ahead.count += 1
            self._used -= 1

    def ask(self, wanted: int, told: Told) -> None:
        now_s = self._clock.monotonic()
        if self._leases.away:
            told(self._leases.later())
        elif now_s < self._ask_again_at_s:
            told(Later(self._token_at_s - now_s))
        else:
            self._waiting.append((wanted, told))
            self._leases.want(self)

    def request(self, now_s: float) -> Ask:
        """What it needs now, and what it is going to use within a lease. What it has goes back."""
        self._expected = self._expected_use(now_s - self._asked_s)
        returned = self._ahead.count + self._needed.count
        self._ahead.count = self._needed.count = self._used = 0
        self._asked_s = now_s
        return Ask(self.subject, sum(wanted for wanted, _ in self._waiting), int(self._expected), returned)

    def _expected_use(self, elapsed_s: float) -> float:
        """As much as since the last asking, but not more than twice what was used, for a few calls say little; nor less
        than what was expected then, halved with each lease since."""
        recent = self._used * _LEASE_S / max(elapsed_s, _LEASE_S / 2)
        return max(recent, self._expected / 2 ** (elapsed_s / _LEASE_S))

    def granted(self, grant: Grant) -> None:
        """The answer. Those who have come since the asking get what is left, or ask once more."""
        now_s = self._clock.monotonic()
        self._needed = _Lot(grant.needed, now_s + _LEASE_S)
        self._ahead = _Lot(self._ahead.count + grant.ahead, self._asked_s + grant.lapse_us / 1_000_000)
        pause_s = 0.0
        if grant.wait_us:
            pause_s = self.subject.rate.pause_s(grant.wait_us / 1_000_000)
            self._token_at_s, self._ask_again_at_s = now_s + pause_s, now_s + min(pause_s, _LEASE_S)
        waiting, self._waiting = self._waiting, []
        for wanted, told in waiting:
            if self._has_some(now_s):
                told(None)
            elif pause_s:
                told(Later(pause_s))
                pause_s += 1 / self.subject.rate.per_second  # the next one's token comes after this one's
            else:
                self._waiting.append((wanted, told))
        if self._waiting:
            self._leases.want(self)

    def lost(self) -> None:
        """Redis is away."""
        waiting, self._waiting = self._waiting, []
        for _, told in waiting:
            told(None if self._leases.lets_all_through else self._leases.later())

    def _has_some(self, now_s: float) -> bool:
        return any(lot.count and now_s < lot.lapse_s for lot in (self._needed, self._ahead))


class Leases:
    """Asks for the tokens of all limits, in one round trip at a time, which takes along what has come meanwhile.

    Once Redis does not answer, nobody waits for it: it is probed now and then, and `open_when_away` says whether all
    is let through until then, or nothing.
    """

    def __init__(
        self, buckets: SharedBuckets, clock: Clock, random: Random, observer: LimitObserver, *, open_when_away: bool
    ) -> None:
        self.away = False
        self._buckets = buckets
        self._clock = clock
        self._random = random
        self._observer = observer
        self._open_when_away = open_when_away
        self._wanting: dict[LeasedLimit, None] = {}
        self._news = asyncio.Event()
        self._probe_at_s = 0.0

    @property
    def lets_all_through(self) -> bool:
        return self.away and self._open_when_away

    def later(self) -> Later:
        """What is said while nothing is let through."""
        return Later(max(self._probe_at_s - self._clock.monotonic(), 0) + _FIRST_PROBE_S, away=True)

    def new_limit(self, subject: Subject) -> LeasedLimit:
        return LeasedLimit(subject, self, self._clock)

    def want(self, limit: LeasedLimit) -> None:
        """The limit is asked for in the next round trip."""
        self._wanting[limit] = None
        self._news.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._news.wait()
            wanting = list(self._wanting)[:_MOST_AT_ONCE]
            for limit in wanting:
                del self._wanting[limit]
            if not self._wanting:
                self._news.clear()
            await self._ask(wanting)

    async def _ask(self, wanting: list[LeasedLimit]) -> None:
        now_s = self._clock.monotonic()
        try:
            grants = await self._buckets.lease([limit.request(now_s) for limit in wanting])
        except RedisAway as error:
            self._lose(wanting, error)
            await self._probe()
            return
        self._observer.leased()
        for limit, grant in zip(wanting, grants, strict=True):
            limit.granted(grant)

    def _lose(self, wanting: list[LeasedLimit], error: RedisAway) -> None:
        self._set_away(True)
        policy = "nothing is limited" if self._open_when_away else "what has a limit is refused or waits"
        log.warning("Redis is away", why=str(error), until_it_is_back=policy)
        others, self._wanting = list(self._wanting), {}
        for limit in (*wanting, *others):
            limit.lost()

    async def _probe(self) -> None:
        pause_s = _FIRST_PROBE_S
        while True:
            jittered_s = pause_s * (0.5 + self._random.random() / 2)
            self._probe_at_s = self._clock.monotonic() + jittered_s
            await self._clock.sleep(jittered_s)
            try:
                await self._buckets.ping()
                break
            except RedisAway:
                pause_s = min(2 * pause_s, _LAST_PROBE_S)
        self._set_away(False)
        log.info("Redis is back")

    def _set_away(self, away: bool) -> None:
        self.away = away
        self._observer.away(away)
