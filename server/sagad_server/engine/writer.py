"""Group commit: the transitions of all sagas that are ready together become durable together.

A batch is what has gathered while the previous commit was under way; there is no linger. One batch is in flight at a
time, and nothing is sent ahead of a batch whose fate is unknown.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Protocol
from uuid import UUID

from sagad_server.engine.ports import Clock, Observer, Random
from sagad_server.storage.locks import LockId
from sagad_server.storage.rows import Key, RowState
from sagad_server.storage.store import CommitUnknown, DataRejected, LostRace, Retryable, Store
from sagad_server.storage.writes import Batch, Write

_MOST_RACES = 6
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
_NO_TOKENS: Mapping[str, int] = {}


class Owner(Protocol):
    """Who is told what became of a write. Each write is told of exactly once, except that `stalled` may come before."""

    def written(self, write: Write, time: datetime, lock_tokens: Mapping[str, int]) -> None:
        """It is durable. `lock_tokens` are those of the locks that it has taken."""

    def awaited(self, locks: Set[LockId]) -> None:
        """These were given back, and others wait for them. Not told of a commit whose answer was lost."""

    def held_up(self, write: Write) -> None:
        """Not inserted: a lock that it was to take is not free."""

    def taken_over(self, write: Write) -> None:
        """Not written: the row has another epoch, or is gone. Forget the saga."""

    def exists(self, write: Write) -> None:
        """Not inserted: the key belongs to another saga."""

    def rejected(self, write: Write, error: DataRejected | None) -> None:
        """Not written: the store cannot keep it, or its definition is gone (None)."""

    def stalled(self, writes: Sequence[Write]) -> None:
        """The store does not take these now; they stay in hand."""


class Writer:
    """Commits writes, at most one for each saga at a time."""

    def __init__(
        self, store: Store, clock: Clock, random: Random, observer: Observer, owner: Owner, max_batch: int
    ) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._observer = observer
        self._owner = owner
        self._max_batch = max_batch
        self._queue: deque[Write] = deque()
        self._ready = asyncio.Event()
        self._missed: set[Key] = set()
        """Inserts of the batch in hand that a commit, by its own answer, did not make, though no row was in the way."""
        self._given_up = False
        """What is in hand is not to be sent again."""
        self.healthy = True
        self.in_flight = 0

    def submit(self, write: Write) -> None:
        self._queue.append(write)
        self._ready.set()

    def forget(self) -> None:
        """Nothing is to be sent any more of what was submitted until now: it would be written under the node's next
        registration. The batch that is under way is told of all the same."""
        self._queue.clear()
        self._given_up = True

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        return not self._queue and not self.in_flight

    async def run(self) -> None:
        """Runs until cancelled. What is then in flight is unknown to this process."""
        while True:
            if not self._queue:
                self._ready.clear()
                await self._ready.wait()
            # Let every task that is ready add its transition: where the CPU is the limit, batches grow.
            await self._clock.sleep(0)
            writes = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]
            self.in_flight = len(writes)
            self._given_up = False
            await self._settle(writes, [])
            self._missed.clear()
            self.in_flight = 0
            self.healthy = True  # also if not one of them had to be written: the store has settled their fate

    async def _settle(self, writes: list[Write], sent: list[UUID]) -> None:
        """Sends the writes until the fate of each is known and told.

        sent: batches that they were all part of, and may have been committed by.
        """
        failures = races = 0
        while writes:
            if self._given_up:
                self._give_up(writes)
                return
            began = self._clock.monotonic()
            batch = Batch(self._random.uid(), writes)
            sent.append(batch.batch_id)
            try:
                committed = await self._store.commit(batch)
            except DataRejected as error:
                await self._halve(writes, sent, error)
                return
            except LostRace as error:
                sent.pop()
                races += 1
                if races == _MOST_RACES:  # as if somebody who is no more held a lock: the others are not to wait for it
                    await self._halve(writes, sent, DataRejected(str(error)))
                    return
                self._observer.commit_failed("LostRace")
                await self._clock.sleep(_FIRST_PAUSE_S * self._random.random())
            except Retryable:
                sent.pop()  # certainly not committed: nothing to remember of a long outage
                failures = await self._pause(writes, failures, "Retryable")
            except CommitUnknown:
                failures = await self._pause(writes, failures, "CommitUnknown")
                writes = await self._resolve(writes, sent, answered=False)
            else:
                self.healthy = True
                failures = 0
                self._observer.committed(len(committed.keys), self._clock.monotonic() - began)
                missing = []
                for write in writes:
                    if write.key in committed.keys:
                        self._owner.written(write, committed.time, committed.lock_tokens.get(write.key, _NO_TOKENS))
                    elif write.key in committed.held_up:
                        self._owner.held_up(write)
                    else:
                        missing.append(write)
                if committed.awaited:
                    self._owner.awaited(committed.awaited)
                writes = await self._resolve(missing, sent, answered=True) if missing else []

    async def _halve(self, writes: list[Write], sent: list[UUID], error: DataRejected) -> None:
        """Finds the culprit, so that the rest are committed."""
        self._observer.commit_failed("DataRejected")
        if len(writes) == 1:
            self._owner.rejected(writes[0], error)
            return
        middle = len(writes) // 2
        await self._settle(writes[:middle], list(sent))
        await self._settle(writes[middle:], list(sent))

    async def _pause(self, writes: list[Write], failures: int, reason: str) -> int:
        """Waits before the next try: never for ever longer, since sagas wait. A deadlock is tried again without
        alarm."""
        self._observer.commit_failed(reason)
        if failures:
            self.healthy = False
            self._owner.stalled([*writes, *self._queue])
        bound = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**failures)
        await self._clock.sleep(bound * (0.5 + self._random.random() / 2))
        return min(failures + 1, 16)

    async def _resolve(self, writes: list[Write], sent: list[UUID], *, answered: bool) -> list[Write]:
        """A row that did not come back (`answered`), or a lost answer, means unknown: asks the rows. Returns what is to
        be sent again."""
        failures = 0
        while True:
            try:
                rows = await self._store.resolve([write.key for write in writes])
                break
            except Retryable:
                failures = await self._pause(writes, failures, "Retryable")
        return [write for write in writes if self._send_again(write, rows.get(write.key), sent, answered=answered)]

    def _send_again(self, write: Write, row: RowState | None, sent: list[UUID], *, answered: bool) -> bool:
        if write.new is not None:
            return self._insert_again(write, row, sent, answered=answered)
        if row is not None and row.epoch == write.epoch and row.revision == write.revision and row.batch_id in sent:
            self._owner.written(write, row.time, row.lock_tokens)
            return False
        stands = row is not None and row.epoch == write.guard_epoch and row.revision == write.revision - 1
        if stands and row is not None and row.batch_id is not None:  # a tombstone is never written
            return True
        self._owner.taken_over(write)
        return False

    def _insert_again(self, write: Write, row: RowState | None, sent: list[UUID], *, answered: bool) -> bool:
        assert write.new is not None
        if row is None:
            # An empty read decides nothing: the insert may still be under way, and sending it again waits for it. Only
            # what a commit, by its own answer, did not make twice cannot be made: its definition is gone.
            if not answered or write.key not in self._missed:
                if answered:
                    self._missed.add(write.key)
                return True
            self._owner.rejected(write, None)
        elif row.uid != write.new.uid:
            self._owner.exists(write)
        elif (row.epoch, row.revision) == (write.epoch, 1) and row.batch_id in sent:
            self._owner.written(write, row.time, row.lock_tokens)
        else:  # others have gone on with it
            self._owner.taken_over(write)
        return False

    def _give_up(self, writes: list[Write]) -> None:
        for write in writes:
            self._owner.taken_over(write)
