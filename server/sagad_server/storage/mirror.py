"""The journal as the mirror relays it: in lanes, each with its own place."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

from sagad_server.storage.store import EventRow

LANES = 8
"""Lane n has the relay partitions p with p % LANES = n. Fixed for ever, as these are: a lane's place in Kafka belongs
to its transactional id."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Behind one event of a lane; (0, 0) is the beginning."""

    xid: int
    position: int


BEGINNING = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place with what proves that the journal still is the one in which it was found."""

    place: Place
    batch_id: UUID | None = None
    """Of the event there; None: nothing is to be proved."""
    history: str = ""
    """The database, and its timeline."""


@dataclass(slots=True)
class MirrorEvent:
    """An event of a lane, with what is told of its saga."""

    mark: Mark
    row: EventRow
    uid: UUID
    definition_id: str
    version: str
    relay_partition: int
    labels: dict[str, str]
    """Told with the first event alone."""


@dataclass(slots=True)
class LanePage:
    """What follows a mark in a lane."""

    events: list[MirrorEvent]
    more: bool
    """There is more to read just now."""
    known: bool
    """The event of the mark that was asked for is there, in the same history."""
    history: str


class Start(IntEnum):
    """Where a lane goes on: numbers of `sagad.v1.MirrorStart`."""

    FIRST = 0
    """The lane was made: from the beginning, and Kafka must not know it yet."""
    CURSOR = 1
    BEGINNING = 2
    END = 3


@dataclass(slots=True)
class Lane:
    """A lane's row."""

    topic: str
    lane: int
    owner: UUID | None
    start_id: UUID
    start: Start
    begun: bool
    """Kafka has had a place of this start."""
    place: Place
    """All before it is relayed. Kafka may be ahead."""
    fault: str
    """Why it stands still until an operator says where to go on; empty: it does not."""


@dataclass(slots=True)
class Relay:
    """A process that relays."""

    relay_id: UUID
    relay_name: str
    lease: int
    """Grows while it lives."""


@dataclass(slots=True)
class LaneLag:
    """How far a lane is behind, as the database knows it."""

    lane: Lane
    relay_name: str
    """Of the owner; empty: nobody's."""
    events: int
    """Not known to be relayed, counted up to a bound."""
    seconds: float
    """The age of the oldest of them."""
    oldest_time: datetime | None


def lanes_of(rows: Sequence[Lane], owner: UUID) -> set[int]:
    """The lanes that a process owns."""
    return {row.lane for row in rows if row.owner == owner}
