"""Writes, definitions and two kinds of store to try them on."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from sagad_server.domain.states import EventCause, SagaState
from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase
from sagad_server.storage.nodes import Node
from sagad_server.storage.postgres import PostgresSettings, PostgresStore
from sagad_server.storage.rows import Key, LoadedSaga
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Store
from sagad_server.storage.writes import Batch, NewSaga, Write

NAMESPACE = "default"
DEFINITION_ID = "order"
VERSION = "1.0.0"

OpenStore = Callable[..., Awaitable[PostgresStore]]

EMPTY = """
TRUNCATE sagad.saga, sagad.lock, sagad.event, sagad.definition, sagad.nodes, sagad.secret, sagad.audit,
    sagad.mirror_lane, sagad.mirror_relay, sagad.journal_purge
"""
AGE = """
UPDATE sagad.saga SET
    create_time = create_time - $1::interval, update_time = update_time - $1::interval,
    wake_at = wake_at - $1::interval, end_time = end_time - $1::interval,
    park_time = park_time - $1::interval, purge_time = purge_time - $1::interval
"""


def key(saga_id: str, namespace: str = NAMESPACE) -> Key:
    return namespace, saga_id


def start(saga: str | Key, **changes: Any) -> Write:
    """The first transition of a saga; `changes` are fields of Write or of NewSaga."""
    new_fields = {name: changes.pop(name) for name in list(changes) if name in NewSaga.__slots__}
    new = NewSaga(
        **{
            "uid": uuid.uuid4(),
            "definition_id": DEFINITION_ID,
            "version": VERSION,
            "labels": {},
            "request_hash": b"hash",
            **new_fields,
        }
    )
    return step(saga, 1, new=new, cause=EventCause.STARTED, **changes)


def step(saga: str | Key, revision: int, **changes: Any) -> Write:
    """A transition of a saga that this node has owned from its start."""
    fields: dict[str, Any] = {
        "key": key(saga) if isinstance(saga, str) else saga,
        "revision": revision,
        "guard_epoch": 1,
        "epoch": changes.get("guard_epoch", 1),
        "state": SagaState.RUNNING,
        "cause": EventCause.ANSWERED,
        "body": f"body {revision}".encode(),
        "event": f"event {revision}".encode(),
    }
    return Write(**(fields | changes))


def end(saga: str | Key, revision: int, **changes: Any) -> Write:
    """A transition to SUCCEEDED."""
    return step(saga, revision, **({"state": SagaState.SUCCEEDED, "ended": True, "release": True} | changes))


def batch(*writes: Write) -> Batch:
    return Batch(uuid.uuid4(), list(writes))


def definition(definition_id: str = DEFINITION_ID, version: str = VERSION, **changes: Any) -> StoredDefinition:
    fields: dict[str, Any] = {
        "namespace": NAMESPACE,
        "active": True,
        "step_count": 3,
        "create_time": datetime(2000, 1, 1, tzinfo=UTC),
        "body": b"definition",
    }
    return StoredDefinition(definition_id=definition_id, version=version, **(fields | changes))


@dataclass
class Backend:
    """One kind of store. `store` is open as `node`, and holds the definition that the writes above name."""

    make: Callable[[], Store]
    die: Callable[[Store], None]
    """Ends a store as SIGKILL ends its process."""
    age: Callable[[timedelta], Awaitable[None]]
    """Makes everything that is stored that much older."""
    opened: list[Store] = field(default_factory=list)

    async def open(self, node_name: str = "node") -> tuple[Store, Node]:
        """One more process."""
        store = self.make()
        node = await store.open(node_name)
        self.opened.append(store)
        self.store, self.node = store, node
        return store, node

    async def restart(self, node_name: str = "node") -> tuple[Store, Node]:
        """The same after a SIGKILL of the present one."""
        self.die(self.store)
        return await self.open(node_name)

    async def commit(self, *writes: Write) -> None:
        """Commits and expects all of it to be written."""
        committed = await self.store.commit(batch(*writes))
        assert committed.keys == {write.key for write in writes}

    async def purge_all(self) -> None:
        """Makes tombstones of all that has ended, of which there must be some."""
        assert (await self.store.purge(None, SagaFilter(), timedelta(0), 1_000, dry_run=False)).count

    async def load(self, saga: str | Key) -> LoadedSaga:
        loaded = await self.store.load(key(saga) if isinstance(saga, str) else saga)
        assert loaded is not None
        return loaded

    async def close(self) -> None:
        for store in self.opened:
            await store.close()


def memory_backend() -> Backend:
    moment = [datetime(2026, 1, 1, tzinfo=UTC)]

    def now() -> datetime:
        moment[0] += timedelta(microseconds=1)
        return moment[0]

    async def age(by: timedelta) -> None:
        moment[0] += by

    def die(store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store.die()

    database = MemoryDatabase(now)
    return Backend(lambda: MemoryStore(database), die, age)


def postgres_backend(dsn: str) -> Backend:
    async def age(by: timedelta) -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(AGE, by)
        finally:
            await connection.close()

    def die(store: Store) -> None:
        assert isinstance(store, PostgresStore)
        store.die()

    settings = PostgresSettings(dsn=dsn, pool_max_size=2)
    return Backend(lambda: PostgresStore(settings), die, age)
