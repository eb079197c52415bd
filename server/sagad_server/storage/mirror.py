"""The journal as the mirror relays it: in lanes, each with its own place."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import lru_cache
from typing import Protocol
from uuid import UUID

from sagad_server.storage.rows import EventRow, Key

RELAY_PARTITIONS = 64
LANES = 8
"""Lane n has the relay partitions p with p % LANES = n. Fixed for ever, as these are: a lane's place in Kafka belongs
to its transactional id."""


@lru_cache(maxsize=16_384)
def relay_partition(namespace: str, saga_id: str) -> int:
    """Which relay reads a saga's events: fixed for ever."""
    digest = hashlib.sha256(f"{namespace}\0{saga_id}".encode()).digest()
    return int.from_bytes(digest[:8]) % RELAY_PARTITIONS


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


class MirrorStore(Protocol):
    """Who relays what, how far it is, and the journal by lanes. Every method raises Unavailable."""

    async def enter(self, relay_id: UUID, topic: str, relay_name: str, *, replaces: bool) -> None:
        """Takes part. `replaces`: whoever is there under this name is dead."""

    async def renew(self, relay_id: UUID) -> bool:
        """Lets the lease grow. False: somebody has declared this process dead."""

    async def relays(self, topic: str) -> list[Relay]:
        """All that live, as far as anybody knows."""

    async def bury(self, relay_id: UUID, lease: int) -> None:
        """Declares a process dead, if its lease still stands there."""

    async def leave(self, relay_id: UUID) -> None:
        """Takes no part any more."""

    async def lanes(self, topic: str) -> list[Lane]:
        """All lanes of a topic; none if nobody has relayed to it yet."""

    async def claim(self, relay_id: UUID, topic: str, limit: int) -> None:
        """Takes lanes that nobody owns."""

    async def release(self, relay_id: UUID, topic: str, lanes: Sequence[int]) -> None:
        """Gives lanes to whoever wants them."""

    async def relayed(self, topic: str, places: Mapping[int, tuple[UUID, Place]]) -> None:
        """Notes that Kafka has these lanes up to these places, each of the start with this start_id. Never backwards,
        and never of a start that is over. A purge stays before them."""

    async def stop(self, lane: Lane, fault: str) -> bool:
        """Notes why a lane stands still. False: it has another owner than there, or another start."""

    async def lag(self, topic: str = "") -> list[LaneLag]:
        """The lanes of a topic, or of all, by topic and lane."""

    async def oldest_transaction_s(self) -> float:
        """The age of the oldest transaction that writes: the mirror sees nothing that is younger."""

    async def read(
        self, marks: Mapping[int, Mark], *, lane_limit: int, lane_bytes: int, payloads: bool
    ) -> dict[int, LanePage]:
        """What follows these places in these lanes, in order and final: see `Store.read_journal`. At most `lane_limit`
        events (8 or more) and `lane_bytes` of a lane, but at least one. Without `payloads` only first events have
        theirs."""

    async def first_payloads(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """The payloads of the first events of these sagas."""
