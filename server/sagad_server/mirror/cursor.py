"""A lane's place as Kafka has it, and whether the journal still is the one that it belongs to."""

import json
from dataclasses import dataclass
from uuid import UUID

from sagad_server.storage.mirror import BEGINNING, Lane, LanePage, Mark, Place, Start


class Diverged(Exception):  # noqa: N818 - a verdict on the data
    """Kafka and the journal do not belong together: going on would lose events or repeat them."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a transaction writes beside its events."""

    start_id: UUID
    """Of the start that the lane goes on from; see `Lane`."""
    mark: Mark

    def encode(self) -> bytes:
        mark = self.mark
        values = {
            "start_id": str(self.start_id),
            "xid": mark.place.xid,
            "position": mark.place.position,
            "batch_id": str(mark.batch_id),
            "history": mark.history,
        }
        return json.dumps(values).encode()


def decode(value: bytes) -> Cursor:
    """Raises Diverged if it was not this that wrote it."""
    try:
        read = json.loads(value)
        place = Place(int(read["xid"]), int(read["position"]))
        return Cursor(UUID(read["start_id"]), Mark(place, UUID(read["batch_id"]), str(read["history"])))
    except (ValueError, KeyError, TypeError) as error:
        raise Diverged(f"Kafka's record of the place cannot be read: {value[:200]!r}") from error


def where_to_go_on(lane: Lane, cursor: Cursor | None) -> Mark:
    """Where a lane goes on, by its row and by what Kafka has of it. Raises Diverged."""
    if cursor is not None and cursor.start_id == lane.start_id:
        if cursor.mark.place < lane.place:
            raise Diverged(f"Kafka had this lane up to {_text(lane.place)}, and now only to {_text(cursor.mark.place)}")
        return cursor.mark
    if lane.begun:
        has = "nothing" if cursor is None else "another start of it"
        raise Diverged(f"Kafka had this lane up to {_text(lane.place)}, and now has {has}: one of them was restored")
    if lane.start is Start.CURSOR:
        return Mark(BEGINNING if cursor is None else cursor.mark.place)
    if lane.start is Start.FIRST and cursor is not None:
        raise Diverged("Kafka has events of another database, or of a mirror that was removed, in this topic")
    return Mark(lane.place)


def check(mark: Mark, page: LanePage) -> None:
    """Raises Diverged if the journal of the page is not the one that the mark was found in."""
    if page.known:
        return
    where = _text(mark.place)
    if page.history != mark.history:
        raise Diverged(
            f"the journal was {mark.history} and is now {page.history} (database/timeline): after a fail-over "
            f"or a restore the last events in Kafka, up to {where}, may not have happened"
        )
    raise Diverged(f"the journal does not have the event at {where} that Kafka has: the database was restored")


def _text(place: Place) -> str:
    return f"{place.xid}/{place.position}"
