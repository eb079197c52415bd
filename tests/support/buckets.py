"""Buckets that several guards share without Redis, on the clock of a test."""

from collections.abc import Sequence

from sagad_server.engine.ports import Clock
from sagad_server.guard.bucket import Bucket, Grant
from sagad_server.guard.leases import Ask, RedisAway
from sagad_server.guard.limit import Kind, Subject, clock_us


class MemoryBuckets:
    """`SharedBuckets`, which a test may take away."""

    def __init__(self, clock: Clock) -> None:
        self.away = False
        self.asked: list[Ask] = []
        self._clock = clock
        self._buckets: dict[Subject, Bucket] = {}

    async def lease(self, asks: Sequence[Ask]) -> list[Grant]:
        await self.ping()
        self.asked += asks
        return [self._lease(ask) for ask in asks]

    async def ping(self) -> None:
        await self._clock.sleep(0)
        if self.away:
            raise RedisAway("taken away")

    def _lease(self, ask: Ask) -> Grant:
        now_us = clock_us(self._clock.monotonic())
        bucket = self._buckets.setdefault(ask.subject, Bucket(ask.subject.rate, now_us))
        return bucket.lease(now_us, ask.need, ask.ahead, ask.returned)


class Heard:
    """A `LimitObserver` that remembers."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = []
        self.leases = 0
        self.states: list[bool] = []

    def limited(self, kind: Kind) -> None:
        self.kinds.append(kind)

    def leased(self) -> None:
        self.leases += 1

    def away(self, away: bool) -> None:
        self.states.append(away)


def most_above(times_s: Sequence[float], per_second: float) -> float:
    """How many more of these there are in any stretch of time than `per_second` allows: at most the burst."""
    lowest, most = float("inf"), 0.0
    for number, time_s in enumerate(sorted(times_s)):
        lowest = min(lowest, number - per_second * time_s)
        most = max(most, number + 1 - per_second * time_s - lowest)
    return most
