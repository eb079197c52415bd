"""An event loop whose time passes only when nothing else is left to do: the same steps in the same order.

It knows no files, no threads and no contexts, and that is why it is fast.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

_T = TypeVar("_T")


class NothingLeft(Exception):  # noqa: N818 - a verdict on the world
    """Everybody waits, and nothing is to come."""


class _Handle(asyncio.TimerHandle):
    """A call that is still to come."""

    __slots__ = ()

    def __init__(self, when: float, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._when = when
        self._callback = callback
        self._args = arguments
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True


class VirtualLoop(asyncio.AbstractEventLoop):
    """`time` is in virtual seconds since the world began: the true time, which no node knows."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._count = 0
        self._on_error: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._closed = False

    def time(self) -> float:
        return self._now_s

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> _Handle:  # type: ignore[override]
        handle = _Handle(self._now_s, callback, args)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:  # type: ignore[override]
        self._count += 1
        handle = _Handle(when, callback, args)
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        return self.call_at(self._now_s + delay, callback, *args)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, _T], **_: Any) -> "asyncio.Task[_T]":  # type: ignore[override]
        return asyncio.Task(coro, loop=self)

    def set_exception_handler(
        self, handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None
    ) -> None:
        self._on_error = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._on_error is not None:
            self._on_error(self, context)

    def run_until_complete(self, future: Any) -> Any:
        """Raises NothingLeft."""
        task = asyncio.ensure_future(future, loop=self)
        asyncio._set_running_loop(self)
        try:
            while not task.done():
                self._run_next()
        finally:
            asyncio._set_running_loop(None)
        return task.result()

    def _run_next(self) -> None:
        ready = self._ready
        if not ready:
            self._pass_time()
        handle = ready.popleft()
        if handle._cancelled:
            return
        try:
            handle._callback(*handle._args)
        except Exception as error:  # noqa: BLE001 - as every event loop does, it goes on
            self.call_exception_handler({"message": f"{handle._callback} raised", "exception": error})

    def _pass_time(self) -> None:
        """To the next timer that is not cancelled."""
        timers = self._timers
        while timers:
            when, _, handle = heapq.heappop(timers)
            if not handle._cancelled:
                self._now_s = max(self._now_s, when)
                self._ready.append(handle)
                return
        raise NothingLeft
