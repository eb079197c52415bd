"""A follower of the whole journal: what one reader has in hand of that which the common reader hands out."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sagad_server.engine.saga_then import SagaThen
from sagad_server.storage.journal import Cursor


@dataclass(slots=True)
class Progress:
    """Of the common reader, from its start to its end."""

    read: Cursor
    """What is before it has been read, and is handed out or about to be."""
    told: Cursor
    """What is before it has been handed out to those who want it."""


class Follower:
    """What one reader wants of the journal, from some place on."""

    def __init__(self, progress: Progress, bound: int) -> None:
        self.since = progress.read
        """What is wanted between here and `head`, and is not taken, can be taken."""
        self.closed = False
        self._progress = progress
        self._bound = bound
        self._rows: deque[SagaThen] = deque()
        self._ready = asyncio.Event()
        self._error: Exception | None = None

    @property
    def head(self) -> Cursor:
        return self._progress.told

    def publish(self, rows: Sequence[SagaThen]) -> None:
        """Takes in what it wants of a page. If it is slow, what it had in hand is dropped, and is to be read from the
        journal. So it never has more than a page and its bound."""
        if self._error is not None or rows[-1].cursor <= self.since:  # it has come after that page was read
            return
        if len(self._rows) >= self._bound:
            self.since = self._rows[-1].cursor
            self._rows.clear()
        self._rows.extend(rows)
        self._ready.set()

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._error = error
        self._progress = replace(self._progress)  # the head stays: what the reader goes on to is not for this one
        self._ready.set()

    def close(self) -> None:
        """The node stops."""
        self.closed = True
        self._ready.set()

    def take(self, limit: int) -> list[SagaThen]:
        """The oldest in hand, at most `limit`. Raises what the common reader has failed with."""
        if self._error is not None and not self._rows:
            raise self._error
        return [self._rows.popleft() for _ in range(min(limit, len(self._rows)))]

    async def ready(self) -> None:
        """Returns when there is something to take, or nothing will come."""
        while not self._rows and self._error is None and not self.closed:
            self._ready.clear()
            await self._ready.wait()
