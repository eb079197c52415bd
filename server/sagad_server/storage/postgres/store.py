"""The store on PostgreSQL."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from sagad_server.domain.errors import Unavailable
from sagad_server.domain.states import EventCause
from sagad_server.storage.audit import AuditEntry, AuditFilter, AuditRow
from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.journal import Cursor, JournalPage
from sagad_server.storage.lists import SagaPage, Stats
from sagad_server.storage.locks import Holder, LockId, LockRow
from sagad_server.storage.mirror import relay_partition
from sagad_server.storage.nodes import Node, NodeRow
from sagad_server.storage.postgres import audit as audit_log
from sagad_server.storage.postgres import definitions, lists
from sagad_server.storage.postgres import locks as resource_locks
from sagad_server.storage.postgres.claims import claim, hand_back
from sagad_server.storage.postgres.connect import unavailable
from sagad_server.storage.postgres.journal import journal_end, read_journal
from sagad_server.storage.postgres.load import key_columns, load
from sagad_server.storage.postgres.migrate import is_current, migrate, require_current
from sagad_server.storage.postgres.mirror import MirrorTables
from sagad_server.storage.postgres.nodes import NODES, declare_dead, register
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.purge import purge
from sagad_server.storage.postgres.resolve import SAGAS, resolve
from sagad_server.storage.postgres.rows import event_row, saga_row, stored_definition
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.postgres.writer import Writer
from sagad_server.storage.rows import EventRow, Key, LoadedSaga, Position, RowState, SagaRow
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import DatabaseInfo, Purged, Retryable
from sagad_server.storage.writes import Batch, Committed

PING_S = 2


class PostgresStore:
    """A Store on PostgreSQL.

    With `migrates=False` the schema must be up to date.
    """

    def __init__(self, settings: PostgresSettings, *, migrates: bool = True) -> None:
        self._settings = settings
        self._migrates = migrates
        self._pool = Pool(settings)
        self._writer: Writer | None = None
        self._node_name = ""
        self._address = ""
        self._instance_id = UUID(int=0)

    # --- A node's life

    async def open(self, node_name: str) -> Node:
        self._node_name = node_name
        with unavailable():
            try:
                await self._pool.open()
                await self._prepare_schema()
                node = await self.register()
                self._writer = Writer(self._settings, self._instance_id)
                await self._writer.connect()
            except BaseException:
                self.die()
                raise
            return node

    async def _prepare_schema(self) -> None:
        """An ordinary start finds it up to date, and loses no time."""
        async with self._pool.connection() as connection:
            if not self._migrates:
                await require_current(connection)
            elif not await is_current(connection):
                await migrate(self._settings.dsn, patience_s=self._settings.command_timeout_s)

    async def register(self) -> Node:
        node = await register(self._pool, self._node_name, self._address)
        self._instance_id = node.instance_id
        if self._writer is not None:
            self._writer.owner = node.instance_id
        return node

    async def announce(self, address: str) -> None:
        self._address = address
        await self._pool.fetchval(NODES["announce"], self._instance_id, address)

    async def renew(self) -> bool:
        return await self._pool.fetchval(NODES["renew"], self._instance_id) is not None

    async def nodes(self) -> list[NodeRow]:
        return [NodeRow(*record) for record in await self._pool.fetch(NODES["nodes"])]

    async def declare_dead(self, instance_id: UUID, lease: int) -> list[Key] | None:
        return await declare_dead(self._pool, instance_id, lease)

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()
            try:
                await self._pool.fetchval(NODES["stop"], self._instance_id)
            except Unavailable:  # then others find out by its lease
                self._pool.terminate()
        await self._pool.close()

    def die(self) -> None:
        """Ends at once, as by SIGKILL: nothing more is sent, and what was being loaded stays noted."""
        for part in (self._writer, self._pool):
            if part is not None:
                part.terminate()
        self._writer = None

    async def mark_loading(self, keys: Sequence[Key]) -> None:
        namespaces, saga_ids = key_columns(keys)
        await self._pool.fetchval(NODES["mark_loading"], self._instance_id, namespaces, saga_ids)

    async def secret(self, name: str) -> bytes:
        await self._pool.fetchval(NODES["make_secret"], name, secrets.token_bytes(32))
        value: bytes = await self._pool.fetchval(NODES["get_secret"], name)
        return value

    async def info(self) -> DatabaseInfo:
        found = await self._pool.fetchrow(NODES["info"])
        assert found is not None
        return DatabaseInfo(*found)

    def pool_sizes(self) -> tuple[int, int]:
        """How many connections the pool has, and how many of them are idle."""
        return self._pool.sizes()

    def mirror(self) -> MirrorTables:
        """The tables of the mirror, in the same database."""
        return MirrorTables(self._pool)

    async def ping(self) -> None:
        await self._pool.fetchval(NODES["ping"], self._instance_id, timeout_s=PING_S)

    # --- How sagas move

    async def commit(self, batch: Batch) -> Committed:
        if self._writer is None:
            raise Retryable("the store is not open")
        return await self._writer.commit(batch)

    async def resolve(self, keys: Sequence[Key]) -> dict[Key, RowState]:
        if self._writer is None:
            raise Retryable("the store is not open")
        return await resolve(self._settings, keys) if keys else {}

    async def claim(self, limit: int, exclude: Collection[Key]) -> list[LoadedSaga]:
        return await claim(self._pool, self._instance_id, "claim", limit, *key_columns(exclude))

    async def wake(self, limit: int) -> list[LoadedSaga]:
        return await claim(self._pool, self._instance_id, "wake", limit)

    async def claim_one(self, key: Key) -> LoadedSaga | None:
        claimed = await claim(self._pool, self._instance_id, "claim_one", *key)
        return claimed[0] if claimed else None

    async def count_crash(self, key: Key) -> int:
        crashes: int | None = await self._pool.fetchval(SAGAS["count_crash"], *key)
        return crashes or 0

    async def park(self, key: Key, *, revision: int, epoch: int, reason: int, incident_id: str, event: bytes) -> bool:
        last = (EventCause.INCIDENT, relay_partition(*key), event)
        parked = await self._pool.fetchval(SAGAS["park"], *key, revision, epoch, reason, incident_id, *last)
        return parked is not None

    async def hand_back(self, keys: Mapping[Key, tuple[int, int]]) -> set[Key]:
        return await hand_back(self._pool, self._instance_id, keys)

    async def count_owned(self) -> dict[UUID, int]:
        return {record["owner"]: record["count"] for record in await self._pool.fetch(SAGAS["count_owned"])}

    async def stranded(self) -> list[Key]:
        records = await self._pool.fetch(SAGAS["stranded"], self._instance_id)
        return [(record["namespace"], record["saga_id"]) for record in records]

    # --- What can be read

    async def grant(self, locks: Sequence[LockId]) -> list[Holder]:
        return await resource_locks.grant(self._pool, locks)

    async def locks(self, keys: Sequence[Key]) -> dict[Key, list[LockRow]]:
        return await resource_locks.of_sagas(self._pool, keys)

    async def load(self, key: Key) -> LoadedSaga | None:
        async with self._pool.connection() as connection:
            loaded = await load(connection, [key])
        return loaded[0] if loaded else None

    async def get_row(self, key: Key) -> SagaRow | None:
        record = await self._pool.fetchrow(SAGAS["get_row"], *key)
        return saga_row(record) if record else None

    async def moved(self, seen: Mapping[Key, int]) -> dict[Key, int | None]:
        ordered = sorted(seen)
        records = await self._pool.fetch(SAGAS["moved"], *key_columns(ordered), [seen[key] for key in ordered])
        return {(record["namespace"], record["saga_id"]): record["revision"] for record in records}

    async def list_events(self, key: Key, after_revision: int, limit: int) -> list[EventRow]:
        return [event_row(each) for each in await self._pool.fetch(SAGAS["list_events"], *key, after_revision, limit)]

    async def journal_end(self) -> Cursor:
        return await journal_end(self._pool)

    async def read_journal(self, after: Cursor, limit: int) -> JournalPage:
        return await read_journal(self._pool, after, limit)

    async def list_sagas(
        self, namespace: str, selection: SagaFilter, after: Position | None, limit: int, most_scanned: int
    ) -> SagaPage:
        return await lists.list_sagas(self._pool, namespace, selection, after, limit, most_scanned)

    async def stats(self, namespace: str, selection: SagaFilter, most_ended: int, most_scanned: int) -> Stats:
        return await lists.stats(self._pool, namespace, selection, most_ended, most_scanned)

    async def count_by_state(self) -> dict[int, int]:
        return {record["state"]: record["count"] for record in await self._pool.fetch(SAGAS["count_by_state"])}

    # --- What goes

    async def purge(
        self, namespace: str | None, selection: SagaFilter, ended_before: timedelta, limit: int, *, dry_run: bool
    ) -> Purged:
        return await purge(self._pool, namespace, selection, ended_before, limit, dry_run=dry_run)

    async def forget(self, older_than: timedelta, limit: int) -> int:
        return len(await self._pool.fetch(SAGAS["forget"], older_than, limit))

    # --- Definitions

    async def create_definition(
        self, definition: StoredDefinition, max_definitions: int, max_steps: int, *, audit: AuditEntry | None = None
    ) -> StoredDefinition:
        return await definitions.create(self._pool, definition, max_definitions, max_steps, audit)

    async def get_definition(self, namespace: str, definition_id: str, version: str) -> StoredDefinition | None:
        record = await self._pool.fetchrow(definitions.SQL["get"], namespace, definition_id, version)
        return stored_definition(record) if record else None

    async def list_definitions(self, namespace: str, definition_id: str = "") -> list[StoredDefinition]:
        records = await self._pool.fetch(definitions.SQL["list"], namespace, definition_id)
        return [stored_definition(record) for record in records]

    async def set_definition_active(
        self, namespace: str, definition_id: str, version: str, *, active: bool, audit: AuditEntry | None = None
    ) -> StoredDefinition | None:
        return await definitions.set_active(self._pool, (namespace, definition_id, version), active, audit)

    async def delete_definition(
        self, namespace: str, definition_id: str, version: str, *, audit: AuditEntry | None = None
    ) -> bool:
        return await definitions.delete(self._pool, (namespace, definition_id, version), audit)

    # --- The audit log

    async def append_audit(self, entry: AuditEntry) -> None:
        async with self._pool.connection() as connection:
            await audit_log.append(connection, entry)

    async def list_audit(self, selection: AuditFilter, before: int | None, limit: int) -> list[AuditRow]:
        return await audit_log.list_audit(self._pool, selection, before, limit)
