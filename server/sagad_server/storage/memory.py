"""A store in this process's memory: for tests, for simulation, and to read what a store has to do."""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

from sagad_server.domain.errors import Unavailable
from sagad_server.domain.states import ENDED
from sagad_server.storage import memory_claims, memory_definitions, memory_lists
from sagad_server.storage.audit import AuditEntry, AuditFilter, AuditRow
from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.journal import Cursor, JournalPage
from sagad_server.storage.lists import SagaPage, Stats
from sagad_server.storage.locks import Holder, LockId, LockRow
from sagad_server.storage.memory_database import MOVING, MemoryDatabase, require_storable
from sagad_server.storage.memory_mirror import MemoryMirror
from sagad_server.storage.nodes import Node, NodeRow, NodeState
from sagad_server.storage.rows import EventRow, Key, LoadedSaga, Position, RowState, SagaRow
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import DatabaseInfo, Purged, Retryable
from sagad_server.storage.writes import Batch, Committed


class MemoryStore:
    """A Store on a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase | None = None, new_id: Callable[[], UUID] = uuid4) -> None:
        self.database = database or MemoryDatabase()
        self._new_id = new_id
        self._node_name = ""
        self._address = ""
        self._instance_id: UUID | None = None

    async def open(self, node_name: str) -> Node:
        self._node_name = node_name
        return await self.register()

    async def register(self) -> Node:
        self._instance_id = self._new_id()
        return self.database.register(self._instance_id, self._node_name, self._address)

    async def announce(self, address: str) -> None:
        self._address = address
        self._own_row().address = address

    async def renew(self) -> bool:
        database, instance_id = self._registered()
        if not database.is_live(instance_id):
            return False
        database.nodes[instance_id].lease += 1
        return True

    async def nodes(self) -> list[NodeRow]:
        rows = self._opened().nodes.values()
        last = {row.node_name: row for row in sorted(rows, key=lambda row: row.incarnation)}
        shown = [row for row in rows if row.state == NodeState.LIVE or last[row.node_name] is row]
        return [replace(row) for row in shown]

    async def declare_dead(self, instance_id: UUID, lease: int) -> list[Key] | None:
        database = self._opened()
        node = database.nodes.get(instance_id)
        if node is None or node.state != NodeState.LIVE or node.lease != lease:
            return None
        return database.kill(node)

    def _own_row(self) -> NodeRow:
        database, instance_id = self._registered()
        return database.nodes[instance_id]

    async def close(self) -> None:
        if self._instance_id is not None:
            self.database.loading.pop(self._instance_id, None)
            self._own_row().state = NodeState.DEAD
        self.die()

    def die(self) -> None:
        """Ends as by SIGKILL: what it was loading stays noted, and its row stays LIVE."""
        self._instance_id = None

    def _registered(self) -> tuple[MemoryDatabase, UUID]:
        """The database, and this node's instance_id."""
        if self._instance_id is None:
            raise Unavailable("the store is not open")
        return self.database, self._instance_id

    def _opened(self) -> MemoryDatabase:
        return self._registered()[0]

    async def commit(self, batch: Batch) -> Committed:
        if self._instance_id is None:
            raise Retryable("the store is not open")
        keys = [write.key for write in batch.writes]
        assert len(set(keys)) == len(keys), "a batch holds at most one write of a saga"
        for write in batch.writes:
            require_storable(write)
        database, owner, now = self.database, self._instance_id, self.database.now()
        held_up = {w.key for w in batch.writes if w.takes and not database.locks.free(w.key, w.takes)}
        database.journal.begin()
        free = [write for write in batch.writes if write.key not in held_up]
        awaited = {write.key: database.locks.awaited(write.key) for write in free if write.gives_back}
        written = {write.key for write in free if database.write(write, owner, batch.batch_id, now)}
        tokens = {write.key: database.locks.tokens(write.key) for write in free if write.takes}
        passes = {lock for key, locks in awaited.items() if key in written for lock in locks}
        return Committed(written, now, held_up, tokens, passes)

    async def resolve(self, keys: Sequence[Key]) -> dict[Key, RowState]:
        if self._instance_id is None:
            raise Retryable("the store is not open")
        sagas, locks = self.database.sagas, self.database.locks
        return {key: replace(sagas[key].state(), lock_tokens=locks.tokens(key)) for key in keys if key in sagas}

    async def claim(self, limit: int, exclude: Collection[Key]) -> list[LoadedSaga]:
        return memory_claims.claim(*self._registered(), limit, exclude)

    async def wake(self, limit: int) -> list[LoadedSaga]:
        return memory_claims.wake(*self._registered(), limit)

    async def claim_one(self, key: Key) -> LoadedSaga | None:
        return memory_claims.claim_one(*self._registered(), key)

    async def mark_loading(self, keys: Sequence[Key]) -> None:
        database, instance_id = self._registered()
        database.loading[instance_id] = list(keys)

    async def count_crash(self, key: Key) -> int:
        saga = self._opened().sagas.get(key)
        if saga is None:
            return 0
        saga.crashes += 1
        return saga.crashes

    async def park(self, key: Key, *, revision: int, epoch: int, reason: int, incident_id: str, event: bytes) -> bool:
        saga = self._opened().sagas.get(key)
        if saga is None or saga.row.state not in MOVING or (saga.row.revision, saga.row.epoch) != (revision, epoch):
            return False
        self.database.park(saga, reason, incident_id, event)
        return True

    async def grant(self, locks: Sequence[LockId]) -> list[Holder]:
        return self._opened().locks.grant(locks)

    async def locks(self, keys: Sequence[Key]) -> dict[Key, list[LockRow]]:
        database = self._opened()
        return {key: rows for key in keys if (rows := database.locks.of(key))}

    async def load(self, key: Key) -> LoadedSaga | None:
        saga = self._opened().sagas.get(key)
        return self.database.loaded(saga) if saga is not None else None

    async def get_row(self, key: Key) -> SagaRow | None:
        saga = self._opened().sagas.get(key)
        return replace(saga.row) if saga is not None else None

    async def moved(self, seen: Mapping[Key, int]) -> dict[Key, int | None]:
        sagas = self._opened().sagas
        stand_at = {key: sagas[key].row.revision if key in sagas else None for key in seen}
        return {key: at for key, at in stand_at.items() if at is None or at > seen[key]}

    async def list_sagas(
        self, namespace: str, selection: SagaFilter, after: Position | None, limit: int, most_scanned: int
    ) -> SagaPage:
        return memory_lists.list_sagas(self._opened(), namespace, selection, after, limit, most_scanned)

    async def list_events(self, key: Key, after_revision: int, limit: int) -> list[EventRow]:
        saga = self._opened().sagas.get(key)
        events = [event for event in saga.events if event.revision > after_revision] if saga else []
        return events[:limit]

    async def journal_end(self) -> Cursor:
        return self._opened().journal.end()

    async def read_journal(self, after: Cursor, limit: int) -> JournalPage:
        return self._opened().journal.read(after, limit)

    async def stats(self, namespace: str, selection: SagaFilter, most_ended: int, most_scanned: int) -> Stats:
        return memory_lists.stats(self._opened(), namespace, selection, most_ended, most_scanned)

    async def count_by_state(self) -> dict[int, int]:
        return memory_lists.count_by_state(self._opened())

    async def hand_back(self, keys: Mapping[Key, tuple[int, int]]) -> set[Key]:
        return memory_claims.hand_back(*self._registered(), keys)

    async def count_owned(self) -> dict[UUID, int]:
        return memory_claims.count_owned(self._opened())

    async def stranded(self) -> list[Key]:
        return memory_claims.stranded(*self._registered())

    async def purge(
        self, namespace: str | None, selection: SagaFilter, ended_before: timedelta, limit: int, *, dry_run: bool
    ) -> Purged:
        database = self._opened()
        now = database.now()
        ended = sorted(
            (row.end_time, row.key)
            for row in database.selected(namespace, selection)
            if row.state in ENDED and row.end_time is not None and row.end_time <= now - ended_before
        )
        doomed = [(time, key) for time, key in ended if database.may_purge(key)][:limit]
        if not dry_run:
            database.journal.purge(frozenset(key for _, key in doomed))
            for _, key in doomed:
                database.sagas[key].purge(now)
        return Purged(len(doomed), doomed[-1][0] if doomed else None)

    async def forget(self, older_than: timedelta, limit: int) -> int:
        sagas, now = self._opened().sagas, self.database.now()
        old = [key for key, saga in sagas.items() if saga.row.purge_time and saga.row.purge_time <= now - older_than]
        for key in old[:limit]:
            del sagas[key]
        return len(old[:limit])

    async def create_definition(
        self, definition: StoredDefinition, max_definitions: int, max_steps: int, *, audit: AuditEntry | None = None
    ) -> StoredDefinition:
        return memory_definitions.create(self._opened(), definition, max_definitions, max_steps, audit)

    async def get_definition(self, namespace: str, definition_id: str, version: str) -> StoredDefinition | None:
        found = self._opened().definitions.get((namespace, definition_id, version))
        return replace(found) if found else None

    async def list_definitions(self, namespace: str, definition_id: str = "") -> list[StoredDefinition]:
        in_namespace = [d for d in self._opened().definitions.values() if d.namespace == namespace]
        return [replace(d) for d in in_namespace if definition_id in ("", d.definition_id)]

    async def set_definition_active(
        self, namespace: str, definition_id: str, version: str, *, active: bool, audit: AuditEntry | None = None
    ) -> StoredDefinition | None:
        return memory_definitions.set_active(self._opened(), (namespace, definition_id, version), active, audit)

    async def delete_definition(
        self, namespace: str, definition_id: str, version: str, *, audit: AuditEntry | None = None
    ) -> bool:
        return memory_definitions.delete(self._opened(), (namespace, definition_id, version), audit)

    async def append_audit(self, entry: AuditEntry) -> None:
        self._opened().note(entry)

    async def list_audit(self, selection: AuditFilter, before: int | None, limit: int) -> list[AuditRow]:
        rows = (row for row in reversed(self._opened().audit) if before is None or row.audit_id < before)
        return [row for row in rows if selection.selects(row)][:limit]

    def mirror(self) -> MemoryMirror:
        """The tables of the mirror, in the same database."""
        return self.database.mirror

    async def secret(self, name: str) -> bytes:
        return self._opened().secrets.setdefault(name, secrets.token_bytes(32))

    async def info(self) -> DatabaseInfo:
        self._opened()
        return DatabaseInfo(postgres_version="", schema_version=0, replication=1)

    async def ping(self) -> None:
        self._opened()
