"""What a filter looks at: a saga as one of its transitions left it."""

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.message import DecodeError

from sagad.storage.v1 import storage_pb2
from sagad_server.domain.states import ENDED
from sagad_server.storage.journal import JournalRow


class SagaThen:
    """A `Selectable`. What is in the event's body is read only if it is asked for: most filters do not."""

    __slots__ = ("_row",)

    def __init__(self, row: JournalRow) -> None:
        self._row = row

    @property
    def state(self) -> int:
        """0 if the event cannot be read."""
        try:
            return storage_pb2.EventRecord.FromString(self._row.event.body).state
        except DecodeError:
            return 0

    @property
    def end_time(self) -> datetime | None:
        """The row tells the time of the present end. An end that the saga has left again was that very transition."""
        if self.state not in ENDED:
            return None
        time = self._row.event.time
        return min(self._row.end_time or time, time)

    @property
    def definition_id(self) -> str:
        return self._row.definition_id

    @property
    def version(self) -> str:
        return self._row.version

    @property
    def labels(self) -> Mapping[str, str]:
        return self._row.labels

    @property
    def create_time(self) -> datetime:
        return self._row.create_time

    @property
    def parking_mask(self) -> int:
        return self._row.parking_mask

    @property
    def category(self) -> int:
        return self._row.category
