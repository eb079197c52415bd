"""The tables behind a MemoryStore, and what one statement does to a row."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sagad_server.domain.states import EventCause, SagaState
from sagad_server.storage.audit import AuditEntry, AuditRow
from sagad_server.storage.definitions import StoredDefinition, VersionKey
from sagad_server.storage.long_journal import WHOLE, referred
from sagad_server.storage.memory_journal import MemoryJournal
from sagad_server.storage.memory_locks import MemoryLocks
from sagad_server.storage.memory_mirror import MemoryMirror
from sagad_server.storage.mirror import Place
from sagad_server.storage.nodes import Node, NodeRow, NodeState
from sagad_server.storage.rows import EventRow, Key, LoadedSaga, RowState, SagaRow
from sagad_server.storage.selection import SagaFilter, selects
from sagad_server.storage.store import DataRejected
from sagad_server.storage.writes import Write

MOVING = frozenset({SagaState.RUNNING, SagaState.COMPENSATING})


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class MemorySaga:
    """A saga's row with the columns that nobody reads, and its part of the journal."""

    row: SagaRow
    wake_time: datetime | None = None
    crashes: int = 0
    events: list[EventRow] = field(default_factory=list)
    batch_id: UUID | None = None
    """Of the last event."""

    def append(self, cause: int, time: datetime, body: bytes, payload: bytes, batch_id: UUID) -> None:
        row = self.row
        self.events.append(EventRow(row.namespace, row.saga_id, row.revision, cause, time, body, payload))
        self.batch_id = batch_id

    @property
    def sleeps(self) -> bool:
        return self.row.owner is None and self.wake_time is not None

    def state(self) -> RowState:
        row = self.row
        return RowState(row.uid, row.epoch, row.revision, self.batch_id, row.update_time)

    def purge(self, now: datetime) -> None:
        """Leaves a tombstone."""
        self.events, self.batch_id = [], None
        row = self.row
        row.definition_id = row.version = row.incident_id = ""
        row.body, row.labels, row.purge_time, row.park_time = b"", {}, now, None


class MemoryDatabase:
    """What outlives a MemoryStore. `now` is its clock, the only one that stored times come from."""

    def __init__(self, now: Callable[[], datetime] = _utc_now) -> None:
        self.now = now
        self.sagas: dict[Key, MemorySaga] = {}
        self.journal = MemoryJournal()
        self.locks = MemoryLocks(now)
        self.mirror = MemoryMirror(self.journal, now)
        self.definitions: dict[VersionKey, StoredDefinition] = {}
        self.deleted_definitions: dict[VersionKey, bytes] = {}
        """Their bodies."""
        self.secrets: dict[str, bytes] = {}
        self.nodes: dict[UUID, NodeRow] = {}
        self.loading: dict[UUID, list[Key]] = {}
        self.audit: list[AuditRow] = []

    def is_live(self, instance_id: UUID | None) -> bool:
        node = self.nodes.get(instance_id) if instance_id is not None else None
        return node is not None and node.state == NodeState.LIVE

    def register(self, instance_id: UUID, node_name: str, address: str) -> Node:
        suspects: list[Key] = []
        namesakes = [node for node in self.nodes.values() if node.node_name == node_name]
        for node in namesakes:
            if node.state == NodeState.LIVE:
                suspects += self.kill(node)
        incarnation = max((node.incarnation for node in namesakes), default=0) + 1
        self.nodes[instance_id] = NodeRow(instance_id, node_name, incarnation, NodeState.LIVE, 0, address, self.now())
        return Node(instance_id, node_name, incarnation, suspects)

    def kill(self, node: NodeRow) -> list[Key]:
        """Declares it DEAD; what it was loading."""
        node.state = NodeState.DEAD
        return self.loading.pop(node.instance_id, [])

    def note(self, entry: AuditEntry | None) -> None:
        """Appends to the audit log."""
        if entry is not None:
            self.audit.append(AuditRow(len(self.audit) + 1, self.now(), entry))

    def selected(self, namespace: str | None, selection: SagaFilter) -> Iterable[SagaRow]:
        """The rows themselves, without tombstones."""
        rows = (saga.row for saga in self.sagas.values())
        in_namespace = (row for row in rows if namespace in (None, row.namespace) and row.purge_time is None)
        return (row for row in in_namespace if selects(selection, row))

    def may_purge(self, key: Key) -> bool:
        """Whether its last event can be read by those who read the journal, and is behind every mirror."""
        last = self.journal.last(key)
        return last.xid < self.journal.xmin and self.mirror.is_ahead_of(key, Place(last.xid, last.position))

    def loaded(self, saga: MemorySaga) -> LoadedSaga:
        """A copy; events never change, and are shared."""
        row, events = saga.row, list(saga.events)
        if row.revision > WHOLE:
            kept = referred(row.body)
            events = [event for event in events if event.payload or event.revision in kept]
        return LoadedSaga(replace(row), events, self.now(), self.locks.tokens(row.key))

    def write(self, write: Write, owner: UUID, batch_id: UUID, now: datetime) -> bool:
        """Writes if the guard allows it."""
        saga = self._inserted(write, now) if write.new else self.sagas.get(write.key)
        if saga is None or (saga.row.epoch, saga.row.revision) != (write.guard_epoch, write.revision - 1):
            return False
        row = saga.row
        if row.purge_time is not None:
            return False
        row.revision, row.epoch, row.state, row.body = write.revision, write.epoch, write.state, write.body
        row.owner = None if write.release else owner
        row.parking_mask, row.category, row.update_time = write.parking_mask, write.category, now
        row.incident_id, row.park_time = "", None
        row.end_time = (row.end_time or now) if write.ended else None
        sleeps = write.release and write.wake_after_ms is not None
        saga.wake_time = now + timedelta(milliseconds=write.wake_after_ms or 0) if sleeps else None
        saga.crashes = 0
        saga.append(write.cause, now, write.event, write.payload, batch_id)
        self.journal.append(row, saga.events[-1], batch_id)
        if write.gives_back:
            self.locks.give_back(write.key)
        if write.takes:
            self.locks.take(write.key, write.takes)
        if write.queues_for:
            self.locks.queue(write.key, write.queues_for)
        return True

    def _inserted(self, write: Write, now: datetime) -> MemorySaga | None:
        """The row of a new saga as it would be just before its first transition."""
        new = write.new
        assert new is not None
        namespace, saga_id = write.key
        if write.key in self.sagas or (namespace, new.definition_id, new.version) not in self.definitions:
            return None
        row = SagaRow(
            namespace=namespace,
            saga_id=saga_id,
            uid=new.uid,
            definition_id=new.definition_id,
            version=new.version,
            state=write.state,
            revision=0,
            epoch=write.guard_epoch,
            owner=None,
            labels=dict(new.labels),
            request_hash=new.request_hash,
            parking_mask=0,
            category=0,
            incident_id="",
            park_time=None,
            create_time=now,
            update_time=now,
            end_time=None,
            purge_time=None,
            body=b"",
        )
        return self.sagas.setdefault(write.key, MemorySaga(row))

    def park(self, saga: MemorySaga, reason: int, incident_id: str, event: bytes) -> None:
        """Parks the saga as a whole."""
        row, now = saga.row, self.now()
        row.state, row.owner, row.incident_id = SagaState.PARKED, None, incident_id
        row.revision, row.epoch, row.parking_mask = row.revision + 1, row.epoch + 1, row.parking_mask | 1 << reason
        row.park_time = row.update_time = now
        saga.wake_time = None
        batch_id = uuid4()
        saga.append(EventCause.INCIDENT, now, event, b"", batch_id)
        self.journal.begin()
        self.journal.append(row, saga.events[-1], batch_id)


def require_storable(write: Write) -> None:
    """Raises DataRejected for texts that PostgreSQL could not keep either: NUL, and what UTF-8 cannot encode."""
    texts = [*write.key]
    if write.new:
        texts += [write.new.definition_id, write.new.version, *write.new.labels, *write.new.labels.values()]
    for text in texts:
        if "\0" in text:
            raise DataRejected(f"text with a NUL character: {text!r}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataRejected(f"text that UTF-8 cannot encode: {text!r}") from error
