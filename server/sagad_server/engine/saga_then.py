"""What a filter looks at: a saga as one of its transitions left it."""

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.message import DecodeError

from sagad.storage.v1 import storage_pb2
from sagad_server.domain.states import ENDED
from sagad_server.storage.journal import Cursor, JournalRow


class SagaThen:
    """A `Selectable`, one for all followers of the journal. What is in the event's body is read only if it is asked
    for, and once: most filters do not."""

    __slots__ = ("_state", "row", "told")

    def __init__(self, row: JournalRow) -> None:
        self.row = row
        self.told = b""
        """What clients are told of it: made by the first follower that tells it, for all others too."""
        self._state: int | None = None

    @property
    def cursor(self) -> Cursor:
        return self.row.cursor

    @property
    def state(self) -> int:
        """0 if the event cannot be read."""
        if self._state is None:
            try:
                self._state = storage_pb2.EventRecord.FromString(self.row.event.body).state
            except DecodeError:
                self._state = 0
        return self._state

    @property
    def end_time(self) -> datetime | None:
        """The row tells the time of the present end. An end that the saga has left again was that very transition."""
        if self.state not in ENDED:
            return None
        time = self.row.event.time
        return min(self.row.end_time or time, time)

    @property
    def definition_id(self) -> str:
        return self.row.definition_id

    @property
    def version(self) -> str:
        return self.row.version

    @property
    def labels(self) -> Mapping[str, str]:
        return self.row.labels

    @property
    def create_time(self) -> datetime:
        return self.row.create_time

    @property
    def parking_mask(self) -> int:
        return self.row.parking_mask

    @property
    def category(self) -> int:
        return self.row.category
