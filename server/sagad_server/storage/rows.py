"""A saga's row and its part of the journal, as they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

Key = tuple[str, str]
"""(namespace, saga_id)"""
Position = tuple[datetime, str]
"""A place in a list of sagas: (create_time, saga_id)."""


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
    def position(self) -> Position:
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
class LoadedSaga:
    """A saga with its journal, oldest first, and the database's time when it was read. Of a journal of more than
    `long_journal.WHOLE` events there are those that hold data, and those that the row refers to."""

    row: SagaRow
    events: list[EventRow]
    now: datetime
    lock_tokens: Mapping[str, int] = field(default_factory=dict)
    """Of the locks that the saga holds, by name."""
