"""An event loop whose time passes only when nothing else is left to do: the same steps in the same order."""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class NothingLeft(Exception):  # noqa: N818 - a verdict on the world
    """Everybody waits, and nothing is to come."""


class _NoFiles(selectors.BaseSelector):
    """Waits for nothing but time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingLeft
        self.now_s += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time` is in virtual seconds since the world began: the true time, which no node knows."""

    def __init__(self) -> None:
        self._files = _NoFiles()
        super().__init__(self._files)

    def time(self) -> float:
        return self._files.now_s
