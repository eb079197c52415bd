"""What the engine and the services need of a place where sagas are kept.

Bodies are bytes here: `sagad.storage.v1` messages that only `engine/records.py` reads and writes. Instants are the
database's own; nobody compares them with another clock.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from sagad_server.storage.audit import AuditEntry, AuditFilter, AuditRow
from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.journal import Cursor, JournalPage
from sagad_server.storage.lists import SagaPage, Stats
from sagad_server.storage.locks import Holder, LockId, LockRow
from sagad_server.storage.nodes import Node, NodeRow
from sagad_server.storage.rows import EventRow, Key, LoadedSaga, Position, RowState, SagaRow
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.writes import Batch, Committed


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
class Purged:
    """What a purge has made tombstones of."""

    count: int
    until: datetime | None
    """The last end_time among them. With it as `end_time_min` the next purge does not look at what is gone, which the
    database may not be rid of yet."""


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

    async def journal_end(self) -> Cursor:
        """The last place in the journal, of all sagas, that can be read now."""

    async def read_journal(self, after: Cursor, limit: int) -> JournalPage:
        """The events of all sagas behind a cursor, at most `limit` of them (64 or more): in the order of cursors, which
        is that of revisions for each saga. What was once read is final: nothing ever appears before it. An event that
        is committed appears once every transaction that is older than its own has ended.

        Raises OutOfRange (JOURNAL_CHANGED) if the cursor is of another history, and its event is not there.
        """

    async def stats(self, namespace: str, selection: SagaFilter, most_ended: int, most_scanned: int) -> Stats:
        """Counts of the selected sagas: all that have not ended, and of those that have the newest `most_ended`, by
        create_time, or less of them rather than that many more than `most_scanned` are looked at; of sagas that were
        created at the same time all or none. Tombstones are left out."""

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
