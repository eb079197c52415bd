"""The journal as a whole: the events of all sagas, in the one order in which nothing is ever skipped."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sagad_server.domain.errors import OutOfRange
from sagad_server.storage.rows import EventRow


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the journal, behind one of its events.

    `position` alone is not enough: what was written first may be committed last. Events are read only once no
    transaction is open that could still add one before them, so whoever has read up to a cursor has read everything up
    to it, whichever node wrote it.
    """

    xid: int
    position: int
    history: str = field(compare=False)
    """The database, and its timeline, that the place was found in."""


@dataclass(slots=True)
class JournalRow:
    """An event, without its payload, with what there is to know of its saga."""

    cursor: Cursor
    event: EventRow
    parking_mask: int
    """The saga's, as this event left it. 0 in rows from before schema version 2, as `category` is."""
    category: int
    """The same."""
    definition_id: str
    version: str
    labels: Mapping[str, str]
    create_time: datetime
    end_time: datetime | None
    """The saga's as it is now."""


@dataclass(slots=True)
class JournalPage:
    """A part of the journal."""

    rows: list[JournalRow]
    cursor: Cursor
    """Behind the last row; where there is none, the cursor that was asked for."""
    more: bool
    """There may be more to read just now."""
    purged: Collection[str]
    """The namespaces of which events behind the cursor that was asked for are gone."""


def journal_changed() -> OutOfRange:
    return OutOfRange(
        "the journal does not have the place to go on from: the database is another one, was restored, or has lost "
        "its last transactions in a fail-over; begin anew, and look at what has changed by ListSagas",
        reason="JOURNAL_CHANGED",
    )
