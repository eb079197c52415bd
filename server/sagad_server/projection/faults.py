"""What ends the projection: only a person can say what is to be done."""

from typing import Any

from sagad.v1.saga_pb2 import SagaEvent


class ProjectionStopped(Exception):  # noqa: N818 - a verdict on the topic
    """The message says what is wrong, and what helps."""


class EventsMissing(ProjectionStopped):
    """The topic lacks events of a saga."""

    def __init__(self, event: SagaEvent, last_revision: int) -> None:
        super().__init__(
            f"saga {event.namespace}/{event.saga_id} ({event.uid}): revision {event.revision} came after "
            f"{last_revision}, so the topic lacks events, such as by its retention. Either build a new topic from the "
            f"journal (mirror.topic, see docs/how-to/mirror.md) and project that one, or go on without them: "
            f"projection.gaps=mark, which counts such sagas as incomplete"
        )


class ForeignRecord(ProjectionStopped):
    """Somebody else than the mirror has written into the topic."""

    def __init__(self, record: Any, what: str) -> None:
        super().__init__(
            f"the record at {record.topic}, partition {record.partition}, offset {record.offset} is no event of the "
            f"mirror ({what}): nothing else may write into its topic; build a new one, see docs/how-to/mirror.md"
        )
