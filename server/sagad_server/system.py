"""Time and chance of the real world, for the engine."""

import asyncio
import random
import time
from collections.abc import Callable
from uuid import UUID

import uuid_utils.compat

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clock since boot, which also counts while it sleeps, and the running event loop's timers."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def monotonic(self) -> float:
        return time.clock_gettime(_CLOCK)

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(max(0.0, when - self.monotonic()), callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemRandom:
    """Jitter and ids. Not for secrets: those are made by the store."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - jitter needs no cryptography

    def random(self) -> float:
        return self._random.random()

    def uid(self) -> UUID:
        return uuid_utils.compat.uuid7()
