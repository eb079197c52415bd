"""Which node owns which saga of a MemoryDatabase."""

from collections import Counter
from collections.abc import Collection, Mapping
from uuid import UUID

from sagad_server.storage.memory_database import MOVING, MemoryDatabase, MemorySaga
from sagad_server.storage.rows import Key, LoadedSaga

MAX_STRANDED = 1_000


def claim(database: MemoryDatabase, owner: UUID, limit: int, exclude: Collection[Key]) -> list[LoadedSaga]:
    """See `Store.claim`."""
    lost = [
        saga
        for key, saga in sorted(database.sagas.items())
        if key not in exclude and _claimable(database, saga) and not saga.sleeps
    ]
    return [_take_over(database, owner, saga) for saga in lost[:limit]]


def wake(database: MemoryDatabase, owner: UUID, limit: int) -> list[LoadedSaga]:
    """See `Store.wake`."""
    now = database.now()
    due = [
        (saga.wake_time, key, saga)
        for key, saga in database.sagas.items()
        if saga.row.state in MOVING and saga.row.owner is None and saga.wake_time and saga.wake_time <= now
    ]
    due.sort(key=lambda one: one[:2])
    return [_take_over(database, owner, saga) for _, _, saga in due[:limit]]


def claim_one(database: MemoryDatabase, owner: UUID, key: Key) -> LoadedSaga | None:
    """See `Store.claim_one`."""
    saga = database.sagas.get(key)
    return _take_over(database, owner, saga) if saga is not None and _claimable(database, saga) else None


def _claimable(database: MemoryDatabase, saga: MemorySaga) -> bool:
    return saga.row.state in MOVING and not database.is_live(saga.row.owner)


def _take_over(database: MemoryDatabase, owner: UUID, saga: MemorySaga) -> LoadedSaga:
    saga.row.epoch += 1
    saga.row.owner, saga.wake_time = owner, None
    return database.loaded(saga)


def hand_back(database: MemoryDatabase, owner: UUID, keys: Mapping[Key, tuple[int, int]]) -> set[Key]:
    """See `Store.hand_back`."""
    given = set()
    for key, stands_at in keys.items():
        saga = database.sagas.get(key)
        mine = saga is not None and saga.row.owner == owner
        if saga is not None and mine and (saga.row.epoch, saga.row.revision) == stands_at:
            saga.row.owner = None
            given.add(key)
    return given


def count_owned(database: MemoryDatabase) -> dict[UUID, int]:
    """See `Store.count_owned`."""
    owned = Counter(saga.row.owner for saga in database.sagas.values() if saga.row.state in MOVING)
    return {instance_id: owned[instance_id] for instance_id in database.nodes if database.is_live(instance_id)}


def stranded(database: MemoryDatabase, owner: UUID) -> list[Key]:
    """See `Store.stranded`."""
    rows = (saga.row for saga in database.sagas.values())
    owned = (row for row in rows if row.owner == owner and row.state in MOVING)
    return [row.key for row in sorted(owned, key=lambda row: row.update_time)[:MAX_STRANDED]]
