"""Sagas from the store."""

from sagad_server.domain.errors import NotFound
from sagad_server.domain.states import SagaState
from sagad_server.engine.active import ActiveSaga
from sagad_server.engine.definitions import Definitions
from sagad_server.engine.ports import Clock, Snapshot, Tombstone
from sagad_server.engine.records import decode_row, decode_saga, event_times
from sagad_server.storage.rows import Key, LoadedSaga, SagaRow


class Loader:
    """Builds what the engine and the services work with from rows."""

    def __init__(self, definitions: Definitions, clock: Clock) -> None:
        self._definitions = definitions
        self._clock = clock

    async def active(self, loaded: LoadedSaga, *, owned: bool) -> ActiveSaga:
        """A saga to be driven. Raises whatever its data makes the decoder raise."""
        row = loaded.row
        definition = await self._definitions.get(row.namespace, row.definition_id, row.version)
        return ActiveSaga(
            key=row.key,
            saga=decode_saga(loaded, definition),
            epoch=row.epoch,
            owned=owned,
            create_time=row.create_time,
            update_time=row.update_time,
            end_time=row.end_time,
            times=event_times(loaded),
            anchor_s=self._clock.monotonic(),
            anchor_time=loaded.now,
            request_hash=row.request_hash,
            payload_bytes=sum(len(event.payload) for event in loaded.events),
        )

    async def snapshot(self, loaded: LoadedSaga) -> Snapshot | Tombstone:
        """A saga to be shown."""
        row = loaded.row
        if row.purge_time is not None:
            return tombstone(row)
        definition = await self._definitions.get(row.namespace, row.definition_id, row.version)
        times = event_times(loaded)
        return Snapshot(
            decode_saga(loaded, definition), row.epoch, row.create_time, row.update_time, row.end_time, times
        )

    async def listed(self, row: SagaRow) -> Snapshot | Tombstone:
        """A saga without data, from its row alone: the instants of its steps are not known."""
        if row.purge_time is not None:
            return tombstone(row)
        definition = await self._definitions.get(row.namespace, row.definition_id, row.version)
        saga = decode_row(row, definition)
        return Snapshot(saga, row.epoch, row.create_time, row.update_time, row.end_time, {1: row.create_time})


def tombstone(row: SagaRow) -> Tombstone:
    return Tombstone(
        row.key,
        row.uid,
        SagaState(row.state),
        row.revision,
        row.epoch,
        row.create_time,
        row.update_time,
        row.end_time,
    )


def not_found(key: Key) -> NotFound:
    return NotFound(f"there is no saga {key[1]!r} in namespace {key[0]!r}", reason="SAGA_NOT_FOUND")
