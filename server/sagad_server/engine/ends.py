"""The ends of sagas that are not in this node's memory: they sleep, or another node drives them."""

from sagad_server.domain.states import ENDED, SagaState
from sagad_server.engine.engine import Engine, shutting_down
from sagad_server.engine.loader import Loader, not_found
from sagad_server.engine.ports import Snapshot, Tombstone
from sagad_server.storage.rows import Key

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0


class Ends:
    """Waits for them on behalf of callers."""

    def __init__(self, engine: Engine, loader: Loader) -> None:
        self._engine = engine
        self._loader = loader

    async def of(self, key: Key) -> Snapshot | Tombstone:
        """The saga once it has ended or is parked, whoever makes it so. It is looked for less and less often.

        Raises NotFound, Unavailable.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            if self._engine.draining:
                raise shutting_down()
            row = await self._engine.store.get_row(key)
            if row is None:
                raise not_found(key)
            if row.state in ENDED or row.state == SagaState.PARKED:
                loaded = await self._engine.store.load(key)
                if loaded is None:
                    raise not_found(key)
                answer = await self._loader.snapshot(loaded)
                if isinstance(answer, Tombstone) or answer.saga.at_rest:  # else it has moved on since the row was read
                    return answer
            await self._engine.clock.sleep(pause_s * (0.5 + self._engine.random.random() / 2))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
