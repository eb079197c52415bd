"""A barrier in memory, for tests of participants. Behaves like PostgresBarrier, and is gone with the process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from sagad_participant.errors import Unavailable
from sagad_participant.keyed import KeyedBarrier, Rows, now
from sagad_participant.rows import Claim, Work


class MemoryConnection:
    """What handlers get as `call.connection`. Nothing of it happens if the transaction is rolled back."""

    def __init__(self) -> None:
        self._effects: list[Callable[[], None]] = []

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Calls `effect` when the transaction is committed."""
        self._effects.append(effect)

    def commit(self) -> None:
        """For the barrier."""
        for effect in self._effects:
            effect()


class MemoryBarrier(KeyedBarrier):
    """A barrier for one process and its life. wait_s: how long a call waits for another one with the same key."""

    def __init__(self, *, wait_s: float = 5.0) -> None:
        self._wait_s = wait_s
        self._keys: dict[str, Rows] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def pending(self, limit: int = 100) -> list[Work]:
        """See Barrier."""
        return [work for work in self._works() if work.outcome is None][:limit]

    async def undelivered(self, limit: int = 100) -> list[Work]:
        """See Barrier."""
        return [work for work in self._works() if work.outcome is not None][:limit]

    async def prune(self, older_than: timedelta, limit: int = 1000) -> int:
        """See Barrier."""
        oldest = now() - older_than
        old = [
            key
            for key, rows in self._keys.items()
            if all(row.touched < oldest and row.completion_token is None for row in rows.values())
        ]
        return sum(len(self._keys.pop(key)) for key in old[:limit])

    def _works(self) -> list[Work]:
        rows = [row for rows in self._keys.values() for row in rows.values() if row.completion_token is not None]
        return [row.work() for row in sorted(rows, key=lambda row: row.created)]

    @asynccontextmanager
    async def _transaction(
        self, key: str, claim: Claim | None = None, *, runs: bool = False
    ) -> AsyncIterator[tuple[MemoryConnection, Rows]]:
        lock = self._locks[key]
        try:
            async with asyncio.timeout(self._wait_s):
                await lock.acquire()
        except TimeoutError:
            raise Unavailable(f"another call with this key has been running for {self._wait_s:g} s") from None
        try:
            connection, rows = MemoryConnection(), dict(self._keys.get(key, {}))
            yield connection, rows
            self._keys[key] = rows
            connection.commit()
        finally:
            lock.release()
