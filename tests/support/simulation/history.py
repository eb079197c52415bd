"""What an onlooker has seen of a run. Checkers read this, and nothing else."""

from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

from sagad_server.domain.definition import Definition
from sagad_server.domain.states import Direction
from sagad_server.storage.memory_database import MemoryDatabase
from sagad_server.storage.store import Key


@dataclass(slots=True, frozen=True)
class Applied:
    """A change of a saga's row that the database has made."""

    time_s: float
    key: Key
    revision: int
    """0: a take-over alone, which is no transition."""
    epoch: int
    instance: UUID


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


@dataclass(slots=True, frozen=True)
class Effect:
    """What was done at a participant, or undone, maybe without having been done."""

    time_s: float
    key: Key
    step: int
    idempotency_key: str
    direction: Direction
    by_hand: bool = False


@dataclass(slots=True, frozen=True)
class Acknowledged:
    """A caller was told that a saga is durable at this revision."""

    key: Key
    revision: int
    durable_revision: int
    """0: there was no such saga."""


@dataclass(slots=True)
class Watched:
    """What one client saw of one saga, over all its streams."""

    key: Key
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    """(revision, body)"""
    early: list[int] = field(default_factory=list)
    """Revisions that were shown before they were durable."""
    to_the_end: bool = False


@dataclass(slots=True)
class History:
    """Everything, in the order in which it happened."""

    database: MemoryDatabase
    definitions: dict[str, Definition]
    lease_s: float
    """True seconds that a lease can last at most, on the slowest clock."""
    applied: list[Applied] = field(default_factory=list)
    dispatches: list[Dispatch] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    unapplied: list[str] = field(default_factory=list)
    """Steps that were still open after sagad had accepted an answer for them."""
    watched: list[Watched] = field(default_factory=list)
    incidents: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    """Honest answers that sagad refused as untrue."""
    left_over: list[str] = field(default_factory=list)
    """What nodes still held when all was quiet."""
    trace: list[tuple[object, ...]] = field(default_factory=list)

    def digest(self) -> str:
        """A hash over the whole trace."""
        return sha256("\n".join(map(repr, self.trace)).encode()).hexdigest()

    def story(self) -> str:
        """The trace to be read."""
        return "\n".join(f"{entry[0]:10.4f} " + " ".join(str(fact) for fact in entry[1:]) for entry in self.trace)
