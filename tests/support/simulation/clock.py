"""The clock of one node: it runs at its own rate, and its timers wait while the node is frozen."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

_BEGIN_S = 1000.0


class Gate(Protocol):
    """What reaches a node passes here: now, once it is thawed, or never."""

    def __call__(self, callback: Callable[..., object], *arguments: Any) -> None: ...


class _Timer:
    def __init__(self, handle: asyncio.TimerHandle, callback: Callable[[], None]) -> None:
        self.handle = handle
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None
        self.handle.cancel()

    def fire(self) -> None:
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class NodeClock:
    """`rate` seconds pass here in a true second. It counts on while the node is frozen."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: float, gate: Gate) -> None:
        self._loop = loop
        self._rate = rate
        self._gate = gate

    def monotonic(self) -> float:
        return _BEGIN_S + self._loop.time() * self._rate

    def call_at(self, when: float, callback: Callable[[], None]) -> _Timer:
        timer: _Timer
        true_s = (when - _BEGIN_S) / self._rate
        handle = self._loop.call_at(true_s, lambda: self._gate(timer.fire))
        timer = _Timer(handle, callback)
        return timer

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        over = self._loop.create_future()
        self.call_at(self.monotonic() + seconds, lambda: None if over.done() else over.set_result(None))
        await over
