"""What a commit writes, and what it answers."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sagad_server.storage.locks import LockId
from sagad_server.storage.rows import Key


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
