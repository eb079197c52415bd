"""Followers of the whole journal: one reader for all of them, in each node.

The order of the journal is final and the same for everybody. So whoever falls behind reads by itself, from where it is,
until it has caught up with what the common reader hands out, and misses nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from sagad_server.domain.errors import OutOfRange, Unavailable
from sagad_server.engine.ports import Clock
from sagad_server.engine.watch import Watches
from sagad_server.storage.journal import Cursor, JournalPage, JournalRow
from sagad_server.storage.store import Store

_COMMON_PAGE = 1_024
_OWN_PAGE = 256
"""Of a follower that reads by itself: it holds no more, however slow it is."""
_SHORTEST_S = 0.02
"""Between two reads at least: the commits of a storm are read together."""
_LONGEST_S = 0.25
"""Between two reads at most: for what other nodes commit. Where this node has just committed, or there was something to
read, the next reads come sooner."""
_MOST_FAILURES = 5
"""In a row. Then the followers are told."""
_READERS = 2
"""Followers that read by themselves, at once: the store has other work."""


class Follower:
    """What one reader wants of the journal, from some place on."""

    def __init__(self, namespace: str, wants: Callable[[JournalRow], bool], at: Cursor, bound: int) -> None:
        self.namespace = namespace
        self.wants = wants
        self.since = at
        """What is wanted between here and `head`, and is not taken, can be taken."""
        self.head = at
        self.closed = False
        self._bound = bound
        self._rows: deque[JournalRow] = deque()
        self._ready = asyncio.Event()
        self._error: Exception | None = None

    def publish(self, page: JournalPage) -> None:
        """Takes in what follows `head`. What is too much is dropped, and is to be read from the journal."""
        if self._error is not None:
            return
        if self.namespace in page.purged:
            self.fail(purged(self.namespace))
            return
        for row in page.rows:
            if self.wants(row):
                if len(self._rows) >= self._bound:
                    self.since = self._rows[-1].cursor
                    self._rows.clear()
                self._rows.append(row)
                self._ready.set()
        self.head = page.cursor

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._error = error
        self._ready.set()

    def close(self) -> None:
        """The node stops."""
        self.closed = True
        self._ready.set()

    def take(self, limit: int) -> list[JournalRow]:
        """The oldest in hand, at most `limit`. Raises what the common reader has failed with."""
        if self._error is not None and not self._rows:
            raise self._error
        return [self._rows.popleft() for _ in range(min(limit, len(self._rows)))]

    async def ready(self) -> None:
        """Returns when there is something to take, or nothing will come."""
        while not self._rows and self._error is None and not self.closed:
            self._ready.clear()
            await self._ready.wait()


class Journal:
    """The common reader: it reads while there is somebody to read for."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        watches: Watches,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        bound: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._watches = watches
        self._spawn = spawn
        self._bound = bound
        self._followers: list[Follower] = []
        self._cursor: Cursor | None = None
        """How far it has read; None while it does not run."""
        self._pause_s = _SHORTEST_S
        self._woken = asyncio.Event()
        self._turns = asyncio.Semaphore(_READERS)

    async def follow(self, namespace: str, wants: Callable[[JournalRow], bool]) -> Follower:
        """Follows from now on; `unfollow` gives it back. Raises ResourceExhausted, Unavailable."""
        self._watches.enter()
        try:
            cursor = self._cursor or await self._store.journal_end()
            if self._cursor is None:
                self._cursor = cursor
                self._spawn(self._run())
        except BaseException:
            self._watches.leave()
            raise
        follower = Follower(namespace, wants, self._cursor, self._bound)
        self._followers.append(follower)
        return follower

    def unfollow(self, follower: Follower) -> None:
        self._followers.remove(follower)
        self._watches.leave()

    async def read(self, after: Cursor) -> JournalPage:
        """What follows a cursor, for one who is behind. Raises Unavailable, and OutOfRange for what is no more."""
        async with self._turns:
            return await self._store.read_journal(after, _OWN_PAGE)

    def wake(self) -> None:
        """This node has committed."""
        if self._followers:
            self._pause_s = _SHORTEST_S
            self._woken.set()

    def close(self) -> None:
        """Ends every stream: the node stops."""
        for follower in self._followers:
            follower.close()

    async def _run(self) -> None:
        try:
            while self._followers:
                page = await self._next()
                await self._publish(page)
                if not page.more:
                    await self._pause(page)
        except Exception as error:  # noqa: BLE001 - it ends the streams, where it is told of, and not the node
            for follower in self._followers:
                follower.fail(error)
        finally:
            self._cursor = None

    async def _next(self) -> JournalPage:
        failures = 0
        while True:
            assert self._cursor is not None
            self._woken.clear()
            try:
                return await self._store.read_journal(self._cursor, _COMMON_PAGE)
            except Unavailable:
                failures += 1
                if failures == _MOST_FAILURES:
                    raise
                await self._clock.sleep(_LONGEST_S)

    async def _publish(self, page: JournalPage) -> None:
        self._cursor = page.cursor
        if page.rows or page.purged:
            for follower in tuple(self._followers):
                follower.publish(page)
                await self._clock.sleep(0)  # sagas go first

    async def _pause(self, page: JournalPage) -> None:
        self._pause_s = _SHORTEST_S if page.rows else min(2 * self._pause_s, _LONGEST_S)
        await self._clock.sleep(_SHORTEST_S)
        if not self._woken.is_set():
            over = self._clock.call_at(self._clock.monotonic() + self._pause_s - _SHORTEST_S, self._woken.set)
            await self._woken.wait()
            over.cancel()


def purged(namespace: str) -> OutOfRange:
    return OutOfRange(
        f"transitions in namespace {namespace!r} that you have not seen are purged: begin anew, without a resume_token",
        reason="JOURNAL_PURGED",
    )
