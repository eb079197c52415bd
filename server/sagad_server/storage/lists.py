"""Pages and counts of the sagas that a filter selects."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sagad_server.storage.rows import Position, SagaRow

MOST_ENDED = 10_000
"""For `Store.stats`, as the contract promises."""
MOST_SCANNED = 2_000
"""For `Store.list_sagas`: what takes a few milliseconds."""
MOST_SCANNED_ENDED = 20_000
"""For `Store.stats`."""


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
    """None: all that have ended were counted. Else all that were created since then, and none that was before."""
