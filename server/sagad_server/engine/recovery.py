"""What a node does with the sagas of its predecessor, and how it finds those that nobody holds in memory."""

from collections.abc import Collection
from uuid import UUID

from sagad_server.domain.errors import Unavailable
from sagad_server.domain.states import ENDED, ParkingReason, SagaState
from sagad_server.engine.engine import Engine
from sagad_server.engine.loader import Loader
from sagad_server.storage.store import Key, LoadedSaga

MAX_CRASHES = 3
_UPKEEP_EVERY_S = 3.0


class Recovery:
    """Claims sagas in bounded batches, each under a marker, so that one whose data kills the process is found out."""

    def __init__(self, engine: Engine, loader: Loader) -> None:
        self._engine = engine
        self._store = engine.store
        self._loader = loader
        self._missing: set[Key] = set()
        self.stranded = 0
        """Moving sagas that this node owned without having them in memory, found since its start. Expected: 0."""

    async def run(self, instance_id: UUID, suspects: Collection[Key]) -> None:
        """Takes everything over, then keeps looking. Runs until cancelled."""
        waiting = set(suspects)
        while True:
            try:
                while waiting:
                    await self._try_suspect(next(iter(sorted(waiting))), counts=len(suspects) == 1)
                    waiting.discard(next(iter(sorted(waiting))))
                await self._claim_all()
                await self._find_stranded(instance_id)
            except Unavailable:
                await self._engine.clock.sleep(0.2 + self._engine.random.random() * 0.3)
            else:
                await self._engine.clock.sleep(_UPKEEP_EVERY_S)

    async def _try_suspect(self, key: Key, *, counts: bool) -> None:
        """One of the sagas over which the predecessor died is taken over alone; the third death over just this one
        parks it."""
        if counts and await self._store.count_crash(key) >= MAX_CRASHES:
            row = await self._store.get_row(key)
            if row is not None and SagaState(row.state) in (SagaState.RUNNING, SagaState.COMPENSATING):
                incident_id = self._engine.random.uid().hex
                await self._engine.park(key, row.revision, row.epoch, ParkingReason.NO_PROGRESS, incident_id)
            return
        await self._store.mark_loading([key])
        loaded = await self._store.claim_one(key)
        if loaded is not None:
            await self._take(loaded)
        await self._store.mark_loading([])

    async def _claim_all(self) -> None:
        while True:
            room = self._engine.settings.max_sagas_in_memory - len(self._engine.sagas)
            limit = min(self._engine.settings.claim_batch, room)
            if limit <= 0 or self._engine.draining:
                return
            claimed = await self._store.claim(limit, [])
            if not claimed:
                return
            await self._store.mark_loading([loaded.row.key for loaded in claimed])
            for loaded in claimed:
                await self._take(loaded)
            await self._store.mark_loading([])

    async def _take(self, loaded: LoadedSaga) -> None:
        row = loaded.row
        if row.key in self._engine.sagas:  # it came back to us on another way
            return
        try:
            active = await self._loader.active(loaded, owned=True)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a saga whose data cannot be read must not stop the others
            incident_id = self._engine.random.uid().hex
            self._engine.observer.incident(row.key, incident_id, error)
            await self._engine.park(row.key, row.revision, row.epoch, ParkingReason.INTERNAL, incident_id)
            return
        if row.key not in self._engine.sagas:
            self._engine.admit(active)
            self._engine.resume(active)

    async def _find_stranded(self, instance_id: UUID) -> None:
        """A saga that is seen twice as ours, moving, and not in memory, is taken in again."""
        owned = await self._store.stranded()
        missing = {key for key in owned if key not in self._engine.sagas}
        for key in sorted(missing & self._missing):
            loaded = await self._store.load(key)
            if loaded is None or loaded.row.owner != instance_id or SagaState(loaded.row.state) in ENDED:
                continue
            self.stranded += 1
            await self._take(loaded)
        self._missing = missing
