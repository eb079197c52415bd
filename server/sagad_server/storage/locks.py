"""Resource locks: who holds and who waits for them."""

from dataclasses import dataclass
from datetime import datetime

LockId = tuple[str, str]
"""(namespace, name)"""


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
