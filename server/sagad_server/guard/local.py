"""A limit of this node alone: its bucket is in memory."""

from sagad_server.engine.ports import Clock
from sagad_server.guard.bucket import Bucket
from sagad_server.guard.limit import Later, Subject, Told, clock_us


class LocalLimit:
    """A `Limit`."""

    def __init__(self, subject: Subject, clock: Clock) -> None:
        self.subject = subject
        self._clock = clock
        self._bucket = Bucket(subject.rate, self._now_us())

    def take(self) -> bool:
        return self._bucket.take(self._now_us())

    def give_back(self) -> None:
        self._bucket.lease(self._now_us(), 0, 0, returned=1)

    def ask(self, wanted: int, told: Told) -> None:
        wait_us = self._bucket.lease(self._now_us(), 0, 0).wait_us
        told(Later(self.subject.rate.pause_s(wait_us / 1_000_000)))

    def _now_us(self) -> int:
        return clock_us(self._clock.monotonic())
