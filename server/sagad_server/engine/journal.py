"""Followers of the whole journal: one reader for all of them, in each node.

The order of the journal is final and the same for everybody. So whoever falls behind reads by itself, from where it is,
until it has caught up with what the common reader hands out, and misses nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sagad_server.domain.errors import OutOfRange, Unavailable
from sagad_server.engine.audience import Audiences
from sagad_server.engine.follower import Follower, Progress
from sagad_server.engine.ports import Clock
from sagad_server.engine.watch import Watches
from sagad_server.storage.journal import Cursor, JournalPage
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Store

_COMMON_PAGE = 1_024
_OWN_PAGE = 256
"""Of a follower that reads by itself: it holds no more, however slow it is."""
_SHORTEST_S = 0.02
"""Between two reads at least: the commits of a storm are read together."""
_LONGEST_S = 0.25
"""Between two reads at most: for what other nodes commit. Where this node has just committed, or there was something to
read, the next reads come sooner."""
_MOST_TOLD_PER_S = 2_000
"""A message to a client costs 50-100 us, much or little as it tells. So where there are many to tell, each is told more
at once and less often."""
_TURN = 1_024
"""Transitions looked at or handed out before sagas get a turn."""
_MOST_FAILURES = 5
"""In a row. Then the followers are told."""
_READERS = 2
"""Followers that read by themselves, at once: the store has other work."""


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
        self._audiences = Audiences()
        self._progress: Progress | None = None
        """None while it does not run."""
        self._pause_s = _SHORTEST_S
        self._work = 0
        """Since the last turn of the others."""
        self._woken = asyncio.Event()
        self._turns = asyncio.Semaphore(_READERS)

    async def follow(self, namespace: str, selection: SagaFilter) -> Follower:
        """Follows from now on; `unfollow` gives it back. Raises ResourceExhausted, Unavailable."""
        self._watches.enter()
        try:
            if self._progress is None:
                end = await self._store.journal_end()
                if self._progress is None:
                    self._progress = Progress(end, end)
                    self._spawn(self._run(self._progress))
        except BaseException:
            self._watches.leave()
            raise
        follower = Follower(self._progress, self._bound)
        self._audiences.join(follower, namespace, selection)
        return follower

    def unfollow(self, follower: Follower) -> None:
        self._audiences.leave(follower)
        self._watches.leave()

    async def read(self, after: Cursor) -> JournalPage:
        """What follows a cursor, for one who is behind. Raises Unavailable, and OutOfRange for what is no more."""
        async with self._turns:
            return await self._store.read_journal(after, _OWN_PAGE)

    def wake(self) -> None:
        """This node has committed."""
        if self._audiences:
            self._pause_s = _SHORTEST_S
            self._woken.set()

    def close(self) -> None:
        """Ends every stream: the node stops."""
        for follower in self._audiences:
            follower.close()

    async def _run(self, progress: Progress) -> None:
        told = 0
        try:
            while self._audiences:
                page = await self._next(progress.read)
                told = max(told, await self._publish(page, progress))
                if not page.more:
                    await self._pause(page, told)
                    told = 0
        except Exception as error:  # noqa: BLE001 - it ends the streams, where it is told of, and not the node
            for follower in self._audiences:
                follower.fail(error)
        finally:
            self._progress = None

    async def _next(self, after: Cursor) -> JournalPage:
        failures = 0
        while True:
            self._woken.clear()
            try:
                return await self._store.read_journal(after, _COMMON_PAGE)
            except Unavailable:
                failures += 1
                if failures == _MOST_FAILURES:
                    raise
                await self._clock.sleep(_LONGEST_S)

    async def _publish(self, page: JournalPage, progress: Progress) -> int:
        """Returns to how many followers it has handed something."""
        progress.read = page.cursor
        for namespace in page.purged:
            for follower in self._audiences.within(namespace):
                follower.fail(purged(namespace))
        told = 0
        for audience, offered in self._audiences.offers(page.rows):
            await self._turn(len(offered))
            wanted = audience.wanted(offered)
            for follower in tuple(audience.followers) if wanted else ():
                await self._turn(len(wanted))
                follower.publish(wanted)
                told += 1
        progress.told = page.cursor
        return told

    async def _turn(self, work: int) -> None:
        """Sagas go first."""
        self._work += work
        if self._work >= _TURN:
            self._work = 0
            await self._clock.sleep(0)

    async def _pause(self, page: JournalPage, told: int) -> None:
        self._pause_s = _SHORTEST_S if page.rows else min(2 * self._pause_s, _LONGEST_S)
        least_s = min(max(_SHORTEST_S, told / _MOST_TOLD_PER_S), _LONGEST_S)
        await self._clock.sleep(least_s)
        if not self._woken.is_set():
            over = self._clock.call_at(self._clock.monotonic() + self._pause_s - least_s, self._woken.set)
            await self._woken.wait()
            over.cancel()


def purged(namespace: str) -> OutOfRange:
    return OutOfRange(
        f"transitions in namespace {namespace!r} that you have not seen are purged: begin anew, without a resume_token",
        reason="JOURNAL_PURGED",
    )
