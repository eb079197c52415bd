"""What an onlooker has seen of a run. Checkers read this, and nothing else."""

from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from uuid import UUID

from sagad.v1.saga_pb2 import SagaEvent
from sagad_server.domain.definition import Definition
from sagad_server.domain.states import Direction, SagaState
from sagad_server.storage.journal import Cursor
from sagad_server.storage.memory_database import MemoryDatabase, MemorySaga
from sagad_server.storage.rows import Key


@dataclass(slots=True, frozen=True)
class Applied:
    """A change of a saga's row that the database has made."""

    time_s: float
    key: Key
    revision: int
    """0: a take-over alone, which is no transition."""
    epoch: int
    instance: UUID
    place: Cursor | None
    """Of a transition, in the journal."""


@dataclass(slots=True, frozen=True)
class Dispatch:
    """A call that a node has handed to its transport."""

    time_s: float
    node: str
    key: Key
    step: int
    direction: Direction
    generation: int
    attempt: int
    idempotency_key: str
    journaled: bool
    """At that moment the journal had the transition that names it."""
    live: bool
    """At that moment the node was not declared dead."""
    lease_age_s: float
    """True seconds since the node had sent its last renewal that was answered."""
    lock_tokens: dict[str, int]
    held_tokens: dict[str, int]
    """At that moment, as the database has them."""


@dataclass(slots=True, frozen=True)
class Effect:
    """What was done at a participant, or undone, maybe without having been done."""

    time_s: float
    key: Key
    step: int
    idempotency_key: str
    direction: Direction
    lock_tokens: dict[str, int] = field(default_factory=dict)
    by_hand: bool = False


@dataclass(slots=True, frozen=True)
class Acknowledged:
    """A caller was told that a saga is durable at this revision."""

    key: Key
    revision: int
    durable_revision: int
    """0: there was no such saga."""


class WatchEnd(Enum):
    """How a watch of one saga has ended."""

    SAGA_ENDED = "its saga has ended"
    PURGED = "what comes next is purged"


@dataclass(slots=True)
class Watched:
    """What one client saw of one saga, over all its streams."""

    key: Key
    snapshot_revision: int = 0
    """Seen before all else; 0 before that."""
    seen: list[tuple[int, int, int]] = field(default_factory=list)
    """(revision, state, cause)"""
    early: list[int] = field(default_factory=list)
    """Revisions that were shown before they were durable."""
    end: WatchEnd | None = None

    @property
    def revision(self) -> int:
        """The last one that the client knows."""
        return self.seen[-1][0] if self.seen else self.snapshot_revision


@dataclass(slots=True)
class WatchedAll:
    """What one client saw of the sagas of a definition, or of all, from one place in the journal on."""

    definition_id: str
    token: str = ""
    begin: Cursor | None = None
    """Where it was; None before that is known."""
    seen: list[tuple[Key, int]] = field(default_factory=list)
    """(key, revision)"""
    purged: bool = False
    """What comes next is gone, and another one begins anew."""


@dataclass(slots=True)
class Purged:
    """A saga as it was before it was purged."""

    saga: MemorySaga
    applied: int
    """How much had been applied until then."""


@dataclass(slots=True)
class History:
    """Everything, in the order in which it happened."""

    database: MemoryDatabase
    lease_s: float
    """True seconds that a lease can last at most, on the slowest clock."""
    recipes: dict[Key, Definition] = field(default_factory=dict)
    """What the database had under the name of each saga's definition when the saga began."""
    applied: list[Applied] = field(default_factory=list)
    dispatches: list[Dispatch] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    refused: set[Key] = field(default_factory=set)
    """Starts of which every attempt was refused."""
    purged: dict[Key, Purged] = field(default_factory=dict)
    unstorable: set[Key] = field(default_factory=set)
    """Sagas of which something was to be stored that cannot be."""
    unapplied: list[str] = field(default_factory=list)
    """Steps that were still open after sagad had accepted an answer for them."""
    watched: list[Watched] = field(default_factory=list)
    watched_all: list[WatchedAll] = field(default_factory=list)
    incidents: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    """Honest answers that sagad refused as untrue."""
    mirrored: list[tuple[int, SagaEvent]] | None = None
    """What Kafka has in the end, with the partitions; None: this world has no mirror."""
    mirror_faults: list[str] = field(default_factory=list)
    """What was wrong with the mirror at some moment."""
    left_over: list[str] = field(default_factory=list)
    """What nodes still held when all was quiet."""
    trace: list[tuple[object, ...]] = field(default_factory=list)

    def sagas(self) -> dict[Key, MemorySaga]:
        """Each with all of its journal, purged or not."""
        return {**self.database.sagas, **{key: purged.saga for key, purged in self.purged.items()}}

    def waits_for_parked(self, key: Key) -> bool:
        """Whether the saga waits for a lock that a parked one holds, or one that waits for such a one."""
        for lock in self.database.locks.of(key):
            if lock.fencing_token is None and lock.holder:
                holder = (key[0], lock.holder)
                return self.database.sagas[holder].row.state == SagaState.PARKED or self.waits_for_parked(holder)
        return False

    def digest(self) -> str:
        """A hash over the whole trace."""
        return sha256("\n".join(map(repr, self.trace)).encode()).hexdigest()

    def story(self) -> str:
        """The trace to be read."""
        return "\n".join(f"{entry[0]:10.4f} " + " ".join(str(fact) for fact in entry[1:]) for entry in self.trace)
