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
_LOOK_AGAIN_S = 0.05


class NoProgress(Exception):  # noqa: N818 - only told, never raised
    """The process died over just one saga, again and again."""


class Recovery:
    """Claims sagas in bounded batches, each under a marker, so that one whose data kills the process is found out."""

    def __init__(self, engine: Engine, loader: Loader) -> None:
        self._engine = engine
        self._store = engine.store
        self._loader = loader
        self._missing: set[Key] = set()
        self._blamed: Key | None = None
        """The predecessor died over just this saga, and that is not counted yet."""
        self._marked = False
        self.stranded = 0
        """Moving sagas that this node owned without having them in memory, found since its start. Expected: 0."""

    async def run(self, instance_id: UUID, suspects: Collection[Key]) -> None:
        """Takes everything over, then keeps looking. Runs until cancelled."""
        waiting = sorted(suspects)
        self._blamed = waiting[0] if len(waiting) == 1 else None
        while True:
            try:
                await self._unmark()
                while waiting:
                    await self._try_suspect(waiting[0])
                    del waiting[0]
                await self._claim_all()
                await self._find_stranded(instance_id)
            except Unavailable:
                await self._engine.clock.sleep(0.2 + self._engine.random.random() * 0.3)
            else:
                await self._engine.clock.sleep(_UPKEEP_EVERY_S)

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
        counts, self._blamed = key == self._blamed, None  # once: if the answer is lost, rather not at all than twice
        if counts and await self._store.count_crash(key) >= MAX_CRASHES:
            row = await self._store.get_row(key)
            if row is not None and SagaState(row.state) in (SagaState.RUNNING, SagaState.COMPENSATING):
                incident_id = self._engine.random.uid().hex
                self._engine.observer.incident(key, incident_id, NoProgress(f"{MAX_CRASHES} deaths over this saga"))
                await self._engine.park(key, row.revision, row.epoch, ParkingReason.NO_PROGRESS, incident_id)
            return
        await self._mark([key])
        loaded = await self._store.claim_one(key)
        if loaded is not None:
            await self._take(loaded)
        await self._unmark()

    async def _claim_all(self) -> None:
        while True:
            room = self._engine.settings.max_sagas_in_memory - len(self._engine.sagas)
            limit = min(self._engine.settings.claim_batch, room)
            if limit <= 0 or self._engine.draining:
                return
            claimed = await self._store.claim(limit, [])
            if not claimed:
                return
            await self._mark([loaded.row.key for loaded in claimed])
            for loaded in claimed:
                await self._take(loaded)
            await self._unmark()

    async def _take(self, loaded: LoadedSaga) -> None:
        row = loaded.row
        try:
            active = await self._loader.active(loaded, owned=True)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a saga whose data cannot be read must not stop the others
            incident_id = self._engine.random.uid().hex
            self._engine.observer.incident(row.key, incident_id, error)
            await self._engine.park(row.key, row.revision, row.epoch, ParkingReason.INTERNAL, incident_id)
            return
        sagas = self._engine.sagas
        while row.key in sagas and sagas[row.key].saga.revision == 0:  # a start that will hear that the id is taken
            await self._engine.clock.sleep(_LOOK_AGAIN_S)
        if row.key not in sagas:  # else it came back to us on another way
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
