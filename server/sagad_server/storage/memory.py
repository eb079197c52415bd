"""A store in this process's memory: for tests, for simulation, and to read what a store has to do."""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from math import ceil
from uuid import UUID, uuid4

from sagad_server.domain.errors import Unavailable
from sagad_server.domain.states import ENDED
from sagad_server.storage.audit import AuditEntry, AuditFilter, AuditRow
from sagad_server.storage.definitions import StoredDefinition, in_use, require_room, said_otherwise
from sagad_server.storage.journal import Cursor, JournalPage
from sagad_server.storage.lists import SagaPage, Stats
from sagad_server.storage.locks import Holder, LockId, LockRow
from sagad_server.storage.memory_database import MOVING, MemoryDatabase, MemorySaga, require_storable
from sagad_server.storage.memory_mirror import MemoryMirror
from sagad_server.storage.nodes import Node, NodeRow, NodeState
from sagad_server.storage.rows import EventRow, Key, LoadedSaga, Position, RowState, SagaRow
from sagad_server.storage.selection import SagaFilter, selects
from sagad_server.storage.store import DatabaseInfo, Purged, Retryable
from sagad_server.storage.writes import Batch, Committed

MAX_STRANDED = 1_000


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
        database = self._opened()
        assert self._instance_id is not None
        if not database.is_live(self._instance_id):
            return False
        database.nodes[self._instance_id].lease += 1
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
        assert self._instance_id is not None
        return self._opened().nodes[self._instance_id]

    async def close(self) -> None:
        if self._instance_id is not None:
            self.database.loading.pop(self._instance_id, None)
            self._own_row().state = NodeState.DEAD
        self.die()

    def die(self) -> None:
        """Ends as by SIGKILL: what it was loading stays noted, and its row stays LIVE."""
        self._instance_id = None

    def _opened(self) -> MemoryDatabase:
        if self._instance_id is None:
            raise Unavailable("the store is not open")
        return self.database

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
        database = self._opened()
        lost = [
            saga
            for key, saga in sorted(database.sagas.items())
            if key not in exclude and self._claimable(saga) and not saga.sleeps
        ]
        return [self._take_over(saga) for saga in lost[:limit]]

    async def wake(self, limit: int) -> list[LoadedSaga]:
        database = self._opened()
        now = database.now()
        due = [
            (saga.wake_time, key, saga)
            for key, saga in database.sagas.items()
            if saga.row.state in MOVING and saga.row.owner is None and saga.wake_time and saga.wake_time <= now
        ]
        due.sort(key=lambda one: one[:2])
        return [self._take_over(saga) for _, _, saga in due[:limit]]

    async def claim_one(self, key: Key) -> LoadedSaga | None:
        saga = self._opened().sagas.get(key)
        return self._take_over(saga) if saga is not None and self._claimable(saga) else None

    def _claimable(self, saga: MemorySaga) -> bool:
        return saga.row.state in MOVING and not self.database.is_live(saga.row.owner)

    def _take_over(self, saga: MemorySaga) -> LoadedSaga:
        saga.row.epoch += 1
        saga.row.owner, saga.wake_time = self._instance_id, None
        return self.database.loaded(saga)

    async def mark_loading(self, keys: Sequence[Key]) -> None:
        database = self._opened()
        assert self._instance_id is not None
        database.loading[self._instance_id] = list(keys)

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
        following = _newest_first(self._opened().selected(namespace, SagaFilter()))
        if after is not None:
            following = [row for row in following if _follows(row, after)]
        scanned = following[: max(limit, most_scanned)]
        rows = [replace(row) for row in scanned if selects(selection, row)][:limit]
        if len(rows) == limit:
            return SagaPage(rows, rows[-1].position)
        return SagaPage(rows, scanned[-1].position if len(scanned) < len(following) else None)

    async def list_events(self, key: Key, after_revision: int, limit: int) -> list[EventRow]:
        saga = self._opened().sagas.get(key)
        events = [event for event in saga.events if event.revision > after_revision] if saga else []
        return events[:limit]

    async def journal_end(self) -> Cursor:
        return self._opened().journal.end()

    async def read_journal(self, after: Cursor, limit: int) -> JournalPage:
        return self._opened().journal.read(after, limit)

    async def stats(self, namespace: str, selection: SagaFilter, most_ended: int, most_scanned: int) -> Stats:
        rows = _newest_first(self._opened().selected(namespace, SagaFilter()))
        moving = [row for row in rows if row.end_time is None and selects(selection, row)]
        all_ended = [row for row in rows if row.end_time is not None]
        since = None
        if len(all_ended) > most_scanned:
            since = all_ended[most_scanned - 1].create_time + timedelta(microseconds=1)
        scanned = (row for row in all_ended if since is None or row.create_time >= since)
        ended = [row for row in scanned if selects(selection, row)][:most_ended]
        durations = sorted(row.end_time - row.create_time for row in ended if row.end_time)
        p50, p90, p99 = (_percentile(durations, share) for share in (0.5, 0.9, 0.99))
        oldest = min((row.create_time for row in moving), default=None)
        if len(ended) == most_ended:
            since = ended[-1].create_time
        return Stats(_counts(row.state for row in (*moving, *ended)), p50, p90, p99, oldest, since)

    async def count_by_state(self) -> dict[int, int]:
        return _counts(saga.row.state for saga in self._opened().sagas.values() if saga.row.state not in ENDED)

    async def hand_back(self, keys: Mapping[Key, tuple[int, int]]) -> set[Key]:
        given = set()
        for key, stands_at in keys.items():
            saga = self._opened().sagas.get(key)
            mine = saga is not None and saga.row.owner == self._instance_id
            if saga is not None and mine and (saga.row.epoch, saga.row.revision) == stands_at:
                saga.row.owner = None
                given.add(key)
        return given

    async def count_owned(self) -> dict[UUID, int]:
        database = self._opened()
        owned = Counter(saga.row.owner for saga in database.sagas.values() if saga.row.state in MOVING)
        return {instance_id: owned[instance_id] for instance_id in database.nodes if database.is_live(instance_id)}

    async def stranded(self) -> list[Key]:
        rows = (saga.row for saga in self._opened().sagas.values())
        owned = (row for row in rows if row.owner == self._instance_id and row.state in MOVING)
        return [row.key for row in sorted(owned, key=lambda row: row.update_time)[:MAX_STRANDED]]

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
        stored = self._opened().definitions
        key = (definition.namespace, definition.definition_id, definition.version)
        if key not in stored:
            if self.database.deleted_definitions.get(key, definition.body) != definition.body:
                raise said_otherwise(*key[1:])
            steps = sum(other.step_count for other in stored.values())
            require_room(definition, len(stored), steps, max_definitions, max_steps)
            stored[key] = replace(definition, create_time=self.database.now())
            self.database.note(audit)
        return replace(stored[key])

    async def get_definition(self, namespace: str, definition_id: str, version: str) -> StoredDefinition | None:
        found = self._opened().definitions.get((namespace, definition_id, version))
        return replace(found) if found else None

    async def list_definitions(self, namespace: str, definition_id: str = "") -> list[StoredDefinition]:
        in_namespace = [d for d in self._opened().definitions.values() if d.namespace == namespace]
        return [replace(d) for d in in_namespace if definition_id in ("", d.definition_id)]

    async def set_definition_active(
        self, namespace: str, definition_id: str, version: str, *, active: bool, audit: AuditEntry | None = None
    ) -> StoredDefinition | None:
        found = self._opened().definitions.get((namespace, definition_id, version))
        if found is None:
            return None
        found.active = active
        self.database.note(audit)
        return replace(found)

    async def delete_definition(
        self, namespace: str, definition_id: str, version: str, *, audit: AuditEntry | None = None
    ) -> bool:
        key = (namespace, definition_id, version)
        rows = (saga.row for saga in self._opened().sagas.values())
        if any((row.namespace, row.definition_id, row.version) == key for row in rows):
            raise in_use(definition_id, version)
        gone = self.database.definitions.pop(key, None)
        if gone is None:
            return False
        self.database.deleted_definitions[key] = gone.body
        self.database.note(audit)
        return True

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


def _counts(states: Iterable[int]) -> dict[int, int]:
    return dict(Counter(int(state) for state in states))


def _percentile(ordered: Sequence[timedelta], share: float) -> timedelta | None:
    """The smallest that at least this share of them does not exceed."""
    return ordered[ceil(share * len(ordered)) - 1] if ordered else None


def _newest_first(rows: Iterable[SagaRow]) -> list[SagaRow]:
    """In the order of lists."""
    ordered = sorted(rows, key=lambda row: row.saga_id)
    ordered.sort(key=lambda row: row.create_time, reverse=True)
    return ordered


def _follows(row: SagaRow, after: Position) -> bool:
    """In the order of lists."""
    time, saga_id = after
    return row.create_time < time or (row.create_time == time and row.saga_id > saga_id)
