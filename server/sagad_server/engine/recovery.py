"""What a node does with the sagas of its predecessor, and how it finds those that nobody holds in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from uuid import UUID

from sagad_server.domain.errors import Unavailable
from sagad_server.domain.states import ENDED, ParkingReason, SagaState
from sagad_server.engine.engine import Engine
from sagad_server.engine.loader import Loader
from sagad_server.engine.membership import Membership
from sagad_server.storage.rows import Key, LoadedSaga

MAX_CRASHES = 3
_UPKEEP_EVERY_S = 3.0
_WAKE_EVERY_S = 0.5
_LOOK_AGAIN_S = 0.05
_MORE_THAN_FAIR = 1.25
_MINIMUM = 50
"""Sagas: so few are not worth moving."""


class NoProgress(Exception):  # noqa: N818 - only told, never raised
    """The process died over just one saga, again and again."""


class Recovery:
    """Claims sagas in bounded batches, each under a marker, so that one whose data kills the process is found out."""

    def __init__(self, engine: Engine, loader: Loader, membership: Membership) -> None:
        self._engine = engine
        self._store = engine.store
        self._loader = loader
        self._membership = membership
        self._missing: set[Key] = set()
        self._suspects: list[Key] = []
        """Nodes have died over these, maybe."""
        self._blamed: set[Key] = set()
        """Nodes have died over just one of these, and that is not counted yet."""
        self._marked = False
        self._losses = 0
        """How often this node was declared dead: what was claimed before the last time is not its own any more."""
        self._wake = asyncio.Event()
        self._upkeep_at_s = 0.0
        self.stranded = 0
        """Moving sagas that this node owned without having them in memory, found since its start. Expected: 0."""

    def lost(self) -> None:
        """This node was declared dead."""
        self._losses += 1
        self._marked = False
        self._engine.drop_all()

    def regained(self) -> None:
        """Calls may be started again."""
        self._engine.calls.release()

    def adopt(self, suspects: Collection[Key]) -> None:
        """A node has died over these; looks at once for what it leaves."""
        self._suspects += [key for key in sorted(suspects) if key not in self._suspects]
        if len(suspects) == 1:
            self._blamed.update(suspects)
        self._upkeep_at_s = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Takes over what nobody alive owns, wakes what has slept, and keeps looking. Runs until cancelled."""
        clock = self._engine.clock
        while True:
            self._wake.clear()
            try:
                await self._unmark()
                if clock.monotonic() >= self._upkeep_at_s:
                    self._upkeep_at_s = clock.monotonic() + _UPKEEP_EVERY_S
                    await self._upkeep()
                await self._wake_sleepers()
            except Unavailable:
                self._upkeep_at_s = 0.0
                await clock.sleep(0.2 + self._engine.random.random() * 0.3)
            else:
                await self._pause(_WAKE_EVERY_S)

    async def _upkeep(self) -> None:
        while self._suspects:
            await self._try_suspect(self._suspects[0])
            self._suspects.pop(0)
        if not await self._share():
            await self._claim_all()
        await self._find_stranded(self._membership.instance_id)

    async def _pause(self, seconds: float) -> None:
        """Until something is to be adopted, at most."""
        clock = self._engine.clock
        timer = clock.call_at(clock.monotonic() + seconds, self._wake.set)
        await self._wake.wait()
        timer.cancel()

    async def _share(self) -> bool:
        """Gives a part of what only waits to nodes that have less. True if this node has more than its share."""
        owned = await self._store.count_owned()
        mine = owned.get(self._membership.instance_id, 0)
        share = sum(owned.values()) / max(1, len(owned))
        if mine <= share * _MORE_THAN_FAIR + _MINIMUM:
            return False
        await self._engine.hand_back(min(int(mine - share), self._engine.settings.claim_batch))
        return True

    async def _mark(self, keys: list[Key]) -> None:
        self._marked = True
        await self._store.mark_loading(keys)

    async def _unmark(self) -> None:
        """Until this has succeeded, a death would be blamed on what was loaded."""
        if self._marked:
            await self._store.mark_loading([])
            self._marked = False

    async def _try_suspect(self, key: Key) -> None:
        """One of the sagas over which the predecessor died is taken over alone; the third death over just this one
        parks it."""
        counts = key in self._blamed
        self._blamed.discard(key)  # once: if the answer is lost, rather not at all than twice
        if counts and await self._store.count_crash(key) >= MAX_CRASHES:
            row = await self._store.get_row(key)
            if row is not None and SagaState(row.state) in (SagaState.RUNNING, SagaState.COMPENSATING):
                incident_id = self._engine.random.uid().hex
                self._engine.observer.incident(key, incident_id, NoProgress(f"{MAX_CRASHES} deaths over this saga"))
                await self._engine.incidents.park(key, row.revision, row.epoch, ParkingReason.NO_PROGRESS, incident_id)
            return
        await self._mark([key])
        losses = self._losses
        loaded = await self._store.claim_one(key)
        if loaded is not None:
            await self._take(loaded, losses)
        await self._unmark()

    async def _claim_all(self) -> None:
        settings = self._engine.settings
        while True:
            room = settings.max_sagas_in_memory - len(self._engine.sagas)
            if not await self._claim(lambda limit: self._store.claim(limit, []), min(settings.claim_batch, room)):
                return

    async def _wake_sleepers(self) -> None:
        """One batch at a time, and less of it once half of the memory is taken: a million may be due at once, and are
        not to shut out those that start."""
        settings, held = self._engine.settings, len(self._engine.sagas)
        batch = settings.claim_batch if held < settings.max_sagas_in_memory // 2 else 1 + settings.claim_batch // 10
        await self._claim(self._store.wake, min(batch, settings.max_sagas_in_memory - held))

    async def _claim(self, claim: Callable[[int], Awaitable[list[LoadedSaga]]], limit: int) -> bool:
        """Takes in what `claim` gives. False: nothing."""
        if limit <= 0 or self._engine.draining or not self._engine.holds_lease():
            return False  # a dead node would claim the same ones for ever
        losses = self._losses
        claimed = await claim(limit)
        if claimed:
            await self._mark([loaded.row.key for loaded in claimed])
            for loaded in claimed:
                await self._take(loaded, losses)
            await self._unmark()
        return bool(claimed)

    async def _take(self, loaded: LoadedSaga, losses: int) -> None:
        """Drives a saga that was this node's own when it had been declared dead `losses` times."""
        row = loaded.row
        try:
            active = await self._loader.active(loaded, owned=True)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a saga whose data cannot be read must not stop the others
            incident_id = self._engine.random.uid().hex
            self._engine.observer.incident(row.key, incident_id, error)
            await self._engine.incidents.park(row.key, row.revision, row.epoch, ParkingReason.INTERNAL, incident_id)
            return
        sagas = self._engine.sagas
        while (held := sagas.get(row.key)) is not None and held.epoch < row.epoch and held.write is not None:
            await self._engine.clock.sleep(_LOOK_AGAIN_S)  # what it writes comes too late, and it will hear of that
        if held is not None and held.epoch < row.epoch:
            self._engine.give_up(held)
        if row.key not in sagas and self._losses == losses:  # else it came back to us on another way, or is not ours
            self._engine.admit(active)
            self._engine.resume(active)

    async def _find_stranded(self, instance_id: UUID) -> None:
        """A saga that is seen twice as ours, moving, and not in memory, is taken in again."""
        losses = self._losses
        owned = await self._store.stranded()
        missing = {key for key in owned if key not in self._engine.sagas}
        for key in sorted(missing & self._missing):
            loaded = await self._store.load(key)
            if loaded is None or loaded.row.owner != instance_id or SagaState(loaded.row.state) in ENDED:
                continue
            self.stranded += 1
            await self._take(loaded, losses)
        self._missing = missing
