"""A clock that the test turns, and chance that is always the same."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID


@dataclass
class _Timer:
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class HandClock:
    now_s: float = 100.0
    _calls: list[tuple[float, int, _Timer, Callable[[], None]]] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer()
        heapq.heappush(self._calls, (when, len(self._calls) + id(timer), timer, callback))
        return timer

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def turn(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._calls and self._calls[0][0] <= end_s:
            when, _, timer, callback = heapq.heappop(self._calls)
            self.now_s = max(self.now_s, when)
            if not timer.cancelled:
                callback()
        self.now_s = end_s


class Half:
    def random(self) -> float:
        return 0.5

    def uid(self) -> UUID:
        raise NotImplementedError
