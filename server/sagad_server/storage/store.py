"""What the engine and the services need of a place where sagas are kept.

Bodies are bytes here: `sagad.storage.v1` messages that only `engine/records.py` reads and writes. Instants are the
database's own; nobody compares them with another clock.
"""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from sagad_server.storage.audit import AuditEntry, AuditFilter, AuditRow

if TYPE_CHECKING:
    from sagad_server.storage.journal import Cursor, JournalPage

Key = tuple[str, str]
"""(namespace, saga_id)"""
LockId = tuple[str, str]
"""(namespace, name)"""


class CommitUnknown(Exception):  # noqa: N818 - it is not known to be an error
    """Nobody can say whether the batch was committed. Ask `resolve`."""


class DataRejected(Exception):  # noqa: N818 - the store's verdict on the data
    """The batch was certainly not committed, because the store cannot keep something in it."""


class Retryable(Exception):  # noqa: N818 - a plea, not an error
    """The batch was certainly not committed, and may be sent again: a deadlock, a lost race, no connection."""


class LostRace(Exception):  # noqa: N818 - it is won by trying again
    """The batch was certainly not committed: another node has taken a lock since it began."""


class SchemaTooNew(Exception):  # noqa: N818
    """The database was migrated by a newer sagad than this one."""


class SchemaTooOld(Exception):  # noqa: N818
    """The database lacks migrations, and was not to be migrated."""


@dataclass(slots=True)
class NewSaga:
    """The columns of a saga that never change after its first transition."""

    uid: UUID
    definition_id: str
    version: str
    labels: Mapping[str, str]
    request_hash: bytes
    """SHA-256 over the content of StartSaga, to tell a repeat from a conflict."""


@dataclass(slots=True)
class Write:
    """One transition, to be committed if the row still stands at `guard_epoch` and `revision - 1`."""

    key: Key
    revision: int
    guard_epoch: int
    epoch: int
    """Equal to `guard_epoch`, or one more where this write takes the saga over."""
    state: int
    cause: int
    body: bytes
    event: bytes
    payload: bytes = b""
    wake_after_ms: int | None = None
    """With `release`: for how long the saga sleeps, so that only `wake` and `claim_one` take it; None: not at all.
    Means nothing without `release`."""
    parking_mask: int = 0
    """Bit r is set for each ParkingReason r among the saga's parkings."""
    category: int = 0
    """FailureCategory of the saga's failure, 0 if none."""
    ended: bool = False
    """Sets end_time, unless the saga had ended before; a write with ended=False clears it."""
    release: bool = False
    """The saga leaves memory: owner becomes null."""
    new: NewSaga | None = None
    """Only for revision 1: insert, unless the key exists or there is no such definition version."""
    takes: tuple[str, ...] = ()
    """Only with `new`: locks that the saga is to hold. Nothing is written unless all of them are free, and nobody waits
    for one of them. No two writes of a batch take the same lock."""
    queues_for: str = ""
    """The lock that the saga takes a ticket for. Tickets of one batch are drawn in the order of its writes."""
    gives_back: bool = False
    """All locks and tickets of the saga go with this write."""


@dataclass(slots=True)
class Batch:
    """Writes of different sagas (at most one each), committed by one statement."""

    batch_id: UUID
    writes: list[Write]


@dataclass(slots=True)
class Committed:
    """What a commit wrote. A key that is missing was not written by it: ask `resolve`. If that finds no row either, a
    new saga may be sent once more; missing again, and still without a row, its definition version is gone."""

    keys: Set[Key]
    time: datetime
    held_up: Set[Key] = frozenset()
    """New sagas that were not written because a lock that they were to take is not free."""
    lock_tokens: Mapping[Key, Mapping[str, int]] = field(default_factory=dict)
    """Fencing tokens of the locks taken, by name."""
    awaited: Set[LockId] = frozenset()
    """Locks given back for which another saga waited when the commit began. Who queues at the same time is not among
    them, and has to look."""


@dataclass(slots=True, frozen=True)
class Holder:
    """Who holds a lock."""

    lock: LockId
    saga_id: str
    fencing_token: int
    granted: bool
    """It has waited until now."""


@dataclass(slots=True)
class LockRow:
    """A lock that a saga holds or waits for, and who else is concerned."""

    name: str
    ticket: int
    fencing_token: int | None
    """None: it waits."""
    request_time: datetime
    take_time: datetime | None
    holder: str
    """saga_id; empty if nobody holds it."""
    waiting: list[str]
    """saga_ids of the first 10 that wait."""
    waiting_count: int
    """Up to 1,000."""


@dataclass(slots=True)
class RowState:
    """Where a row stands: read under its lock, on a connection of its own."""

    uid: UUID
    epoch: int
    revision: int
    batch_id: UUID | None
    """Of the event at `revision`; None if purged."""
    time: datetime
    """Of the event at `revision`."""
    lock_tokens: Mapping[str, int] = field(default_factory=dict)
    """Of the locks that the saga holds."""


@dataclass(slots=True)
class SagaRow:
    """A saga's row."""

    namespace: str
    saga_id: str
    uid: UUID
    definition_id: str
    version: str
    state: int
    revision: int
    epoch: int
    owner: UUID | None
    labels: Mapping[str, str]
    request_hash: bytes
    parking_mask: int
    category: int
    incident_id: str
    """Not empty: parked as a whole by `park`."""
    park_time: datetime | None
    """When `park` did it."""
    create_time: datetime
    update_time: datetime
    end_time: datetime | None
    purge_time: datetime | None
    """Not None: a tombstone, without body and events."""
    body: bytes

    @property
    def key(self) -> Key:
        return self.namespace, self.saga_id

    @property
    def position(self) -> "Position":
        return self.create_time, self.saga_id


@dataclass(slots=True)
class EventRow:
    """A row of the journal."""

    namespace: str
    saga_id: str
    revision: int
    cause: int
    time: datetime
    body: bytes
    payload: bytes


@dataclass(slots=True)
class LoadedSaga:
    """A saga with its journal, oldest first, and the database's time when it was read. Of a journal of more than
    `long_journal.WHOLE` events there are those that hold data, and those that the row refers to."""

    row: SagaRow
    events: list[EventRow]
    now: datetime
    lock_tokens: Mapping[str, int] = field(default_factory=dict)
    """Of the locks that the saga holds, by name."""


class NodeState(IntEnum):
    """A node is LIVE from its registration until somebody, maybe itself, has declared it DEAD. That is for good."""

    LIVE = 1
    DEAD = 2


@dataclass(slots=True)
class Node:
    """This process as the database knows it since its last registration."""

    instance_id: UUID
    node_name: str
    incarnation: int
    suspects: list[Key]
    """The sagas that predecessors of the same name were loading or deciding when they died."""


@dataclass(slots=True)
class NodeRow:
    """A registration."""

    instance_id: UUID
    node_name: str
    incarnation: int
    state: int
    lease: int
    """Grows with every renewal."""
    address: str
    """Where other nodes reach it; empty until it is announced."""
    start_time: datetime


@dataclass(slots=True, frozen=True)
class SagaFilter:
    """Selects sagas; what is empty selects all. See `sagad.v1.SagaFilter`."""

    states: tuple[int, ...] = ()
    definition_id: str = ""
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    create_time_min: datetime | None = None
    create_time_max: datetime | None = None
    end_time_min: datetime | None = None
    end_time_max: datetime | None = None
    parking_mask: int = 0
    """Any of these bits."""
    categories: tuple[int, ...] = ()


MOST_ENDED = 10_000
"""For `Store.stats`, as the contract promises."""
MOST_SCANNED = 2_000
"""For `Store.list_sagas`: what takes a few milliseconds."""
MOST_SCANNED_ENDED = 20_000
"""For `Store.stats`."""

Position = tuple[datetime, str]
"""A place in a list of sagas: (create_time, saga_id)."""


@dataclass(slots=True)
class SagaPage:
    """A page of a list of sagas. It may be short, even empty, and yet not the last."""

    rows: list[SagaRow]
    stopped_at: Position | None
    """There may be more behind this place; None: there is not."""


@dataclass(slots=True)
class Stats:
    """Counts of sagas, and durations (create_time to end_time) of the ended ones that were counted: None if none has
    ended."""

    by_state: dict[int, int]
    duration_p50: timedelta | None = None
    duration_p90: timedelta | None = None
    duration_p99: timedelta | None = None
    oldest_running_time: datetime | None = None
    ended_since: datetime | None = None
    """None: all that have ended were counted. Else the create_time back to which they were."""


@dataclass(slots=True)
class Purged:
    """What a purge has made tombstones of."""

    count: int
    until: datetime | None
    """The last end_time among them. With it as `end_time_min` the next purge does not look at what is gone, which the
    database may not be rid of yet."""


@dataclass(slots=True)
class StoredDefinition:
    """A definition version. `body` is the serialized `sagad.v1.Definition` without `active` and `create_time`."""

    namespace: str
    definition_id: str
    version: str
    active: bool
    step_count: int
    create_time: datetime
    body: bytes


@dataclass(slots=True)
class DatabaseInfo:
    """What the database is."""

    postgres_version: str
    schema_version: int
    replication: int
    """Number of `sagad.v1.Replication`."""


class Store(Protocol):
    """A place where sagas are kept.

    Reads raise `sagad_server.domain.errors.Unavailable` when the store does not answer. Cursors are exclusive.
    """

    async def open(self, node_name: str) -> Node:
        """Connects, and registers a new incarnation of `node_name` as LIVE; LIVE ones of that name are declared DEAD.
        Raises SchemaTooNew."""

    async def register(self) -> Node:
        """The same again, for a node that finds itself DEAD: from now on it writes under the new instance_id."""

    async def announce(self, address: str) -> None:
        """Tells where other nodes reach this one. Kept over `register`."""

    async def renew(self) -> bool:
        """Lets this node's lease grow. False: it is DEAD, or its row is gone."""

    async def nodes(self) -> list[NodeRow]:
        """All LIVE nodes, and those DEAD ones that were registered last under their name."""

    async def declare_dead(self, instance_id: UUID, lease: int) -> list[Key] | None:
        """LIVE becomes DEAD, if the node's lease still stands at `lease`: the sagas that it was loading or deciding.
        None if it does not stand there."""

    async def close(self) -> None:
        """Gives everything back; what was uncommitted is lost."""

    async def commit(self, batch: Batch) -> Committed:
        """Writes all that the guards allow, atomically and durably, and one event each. A tombstone is never written.

        Raises CommitUnknown, DataRejected, LostRace or Retryable; other exceptions are bugs.
        """

    async def resolve(self, keys: Sequence[Key]) -> dict[Key, RowState]:
        """Where these rows stand, after whatever was under way on them has ended. Raises Retryable."""

    async def claim(self, limit: int, exclude: Collection[Key]) -> list[LoadedSaga]:
        """Takes over up to `limit` moving sagas (RUNNING, COMPENSATING) that no LIVE node owns and that do not sleep:
        epoch + 1, owner = this node."""

    async def wake(self, limit: int) -> list[LoadedSaga]:
        """The same for sagas that have slept long enough, those that have overslept most before the others."""

    async def claim_one(self, key: Key) -> LoadedSaga | None:
        """The same for one saga, asleep or not; None if it does not move or a LIVE node owns it."""

    async def mark_loading(self, keys: Sequence[Key]) -> None:
        """Durably notes what is being loaded or decided just now, so that a death over it can be seen. Empty:
        nothing."""

    async def count_crash(self, key: Key) -> int:
        """Adds one to the number of deaths over just this saga since it last made progress, and returns it: 0 if
        there is no such saga. A commit of a transition of the saga sets it to 0 again."""

    async def park(self, key: Key, *, revision: int, epoch: int, reason: int, incident_id: str, event: bytes) -> bool:
        """Parks a moving saga as a whole without reading its data, if its row stands at this epoch and revision:
        state PARKED, revision + 1, owner null, epoch + 1, since it need not be the owner that parks it, the bit of
        `reason` in parking_mask, and an event with cause INCIDENT. False if it does not stand there. The next commit on
        it clears incident_id and park_time."""

    async def grant(self, locks: Sequence[LockId]) -> list[Holder]:
        """Gives those of these locks that nobody holds to who has waited longest, and returns who holds them now. What
        is lost in a race with another node is left to the next call."""

    async def locks(self, keys: Sequence[Key]) -> dict[Key, list[LockRow]]:
        """What these sagas hold and wait for, by name; those that have to do with no lock are left out."""

    async def load(self, key: Key) -> LoadedSaga | None:
        """A saga with its journal. A tombstone has no events."""

    async def get_row(self, key: Key) -> SagaRow | None:
        """A saga's row alone."""

    async def moved(self, seen: Mapping[Key, int]) -> dict[Key, int | None]:
        """The revisions of those of these sagas that are beyond the one given. None: there is no such saga."""

    async def list_sagas(
        self, namespace: str, selection: SagaFilter, after: Position | None, limit: int, most_scanned: int
    ) -> SagaPage:
        """By create_time descending, then saga_id ascending, from behind `after` on. Tombstones are left out. The page
        comes short rather than that many more than `most_scanned` sagas are looked at."""

    async def list_events(self, key: Key, after_revision: int, limit: int) -> list[EventRow]:
        """The journal of a saga, oldest first."""

    async def journal_end(self) -> "Cursor":
        """The last place in the journal, of all sagas, that can be read now."""

    async def read_journal(self, after: "Cursor", limit: int) -> "JournalPage":
        """The events of all sagas behind a cursor, at most `limit` of them (64 or more): in the order of cursors, which
        is that of revisions for each saga. What was once read is final: nothing ever appears before it. An event that
        is committed appears once every transaction that is older than its own has ended.

        Raises OutOfRange (JOURNAL_CHANGED) if the cursor is of another history, and its event is not there.
        """

    async def stats(self, namespace: str, selection: SagaFilter, most_ended: int, most_scanned: int) -> Stats:
        """Counts of the selected sagas: all that have not ended, and of those that have the newest `most_ended`, by
        create_time, or less of them rather than that many more than `most_scanned` are looked at. Tombstones are left
        out."""

    async def count_by_state(self) -> dict[int, int]:
        """All sagas of all namespaces that have not ended, by state: cheap, for metrics."""

    async def hand_back(self, keys: Mapping[Key, tuple[int, int]]) -> set[Key]:
        """Owner = null for those sagas of this node that stand at the epoch and the revision given: any node may claim
        them. Returns which."""

    async def count_owned(self) -> dict[UUID, int]:
        """Moving sagas of each LIVE node, 0 too, counted up to some bound."""

    async def stranded(self) -> list[Key]:
        """Keys of moving sagas that this node owns, those that have not changed for longest, at most 1,000: the caller
        compares them with its memory."""

    async def purge(
        self, namespace: str | None, selection: SagaFilter, ended_before: timedelta, limit: int, *, dry_run: bool
    ) -> Purged:
        """Makes tombstones of up to `limit` ended sagas that ended at least `ended_before` ago, those that ended first:
        deletes their events and strips their rows of definition, labels and body. None: every namespace. With
        `dry_run` nothing is done."""

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Deletes tombstones that were purged at least `older_than` ago. Returns the number."""

    async def create_definition(
        self,
        definition: StoredDefinition,
        max_definitions: int,
        max_steps: int,
        *,
        audit: AuditEntry | None = None,
    ) -> StoredDefinition:
        """Stores a version (create_time is ignored), or returns the one that stands there, whatever its body is. What
        is stored is noted in the audit log, as all that has `audit`, in the same transaction.
        Raises `errors.ResourceExhausted` naming the bound, and `errors.AlreadyExists` if a version of this name was
        deleted that had another body: others may still know that one."""

    async def get_definition(self, namespace: str, definition_id: str, version: str) -> StoredDefinition | None:
        """One version."""

    async def list_definitions(self, namespace: str, definition_id: str = "") -> list[StoredDefinition]:
        """All versions, or those of one definition_id, in no order: at most max_definitions of them."""

    async def set_definition_active(
        self, namespace: str, definition_id: str, version: str, *, active: bool, audit: AuditEntry | None = None
    ) -> StoredDefinition | None:
        """None if there is no such version."""

    async def delete_definition(
        self, namespace: str, definition_id: str, version: str, *, audit: AuditEntry | None = None
    ) -> bool:
        """False if there is no such version. Raises `errors.FailedPrecondition` (DEFINITION_IN_USE) while a saga row
        names it. Safe against a saga that starts at the same moment: either this raises, or the saga is not
        written."""

    async def append_audit(self, entry: AuditEntry) -> None:
        """Notes what somebody has done."""

    async def list_audit(self, selection: AuditFilter, before: int | None, limit: int) -> list[AuditRow]:
        """The newest of the selected entries first; with `before` those with a smaller audit_id."""

    async def secret(self, name: str) -> bytes:
        """32 random bytes, made once and kept in the database."""

    async def info(self) -> DatabaseInfo:
        """What the database is."""

    async def ping(self) -> None:
        """Raises `errors.Unavailable` if the store does not answer within a second or two, or cannot write."""
