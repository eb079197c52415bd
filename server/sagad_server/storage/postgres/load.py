"""Sagas with their journals."""

from collections.abc import Collection, Sequence

from sagad_server.storage.long_journal import WHOLE, referred
from sagad_server.storage.postgres.connect import AnyConnection
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.postgres.rows import event_row, loaded_saga
from sagad_server.storage.rows import Key, LoadedSaga


async def load(connection: AnyConnection, keys: Collection[Key]) -> list[LoadedSaga]:
    """Those that there are, in no order."""
    if not keys:
        return []
    records = await connection.fetch(SAGAS["load"], *key_columns(keys), WHOLE)
    loaded = [loaded_saga(record) for record in records]
    long = [saga for saga in loaded if saga.row.revision > WHOLE]
    if long:
        await _add_referred(connection, long)
    return loaded


async def _add_referred(connection: AnyConnection, sagas: Sequence[LoadedSaga]) -> None:
    """What a row refers to is as it was when the row was read: events never change. Only a purge may be ahead, and then
    what has ended is shown without some of its instants."""
    events = {saga.row.key: {event.revision: event for event in saga.events} for saga in sagas}
    wanted = [(*saga.row.key, at) for saga in sagas for at in referred(saga.row.body) - events[saga.row.key].keys()]
    for record in await connection.fetch(
        SAGAS["load_events"], *([one[column] for one in wanted] for column in range(3))
    ):
        event = event_row(record)
        events[event.namespace, event.saga_id][event.revision] = event
    for saga in sagas:
        saga.events = [event for _, event in sorted(events[saga.row.key].items())]


def key_columns(keys: Collection[Key]) -> tuple[list[str], list[str]]:
    """Keys in the order in which everybody locks them, as two arrays."""
    ordered = sorted(keys)
    return [namespace for namespace, _ in ordered], [saga_id for _, saga_id in ordered]
