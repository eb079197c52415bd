"""Events of the journal as the contract shows them."""

from datetime import UTC, datetime

import structlog

from sagad.storage.v1 import storage_pb2
from sagad.v1 import saga_pb2
from sagad_server.domain.states import StepState
from sagad_server.storage.rows import EventRow

log = structlog.get_logger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WAITING = frozenset(
    {
        StepState.BACKING_OFF,
        StepState.AWAITING_COMPLETION,
        StepState.COMPENSATION_BACKING_OFF,
        StepState.COMPENSATION_AWAITING_COMPLETION,
    }
)


def event_message(row: EventRow, definition_id: str, version: str, *, full: bool = False) -> saga_pb2.SagaEvent:
    """A row of the journal, read or live; payloads only if `full`."""
    record = storage_pb2.EventRecord.FromString(row.body)
    event = saga_pb2.SagaEvent(
        namespace=row.namespace,
        saga_id=row.saga_id,
        revision=row.revision,
        state=record.state,
        cause=record.cause,
        actor=record.actor,
        reason=record.reason,
        time=timestamp(row.time),
        failure=record.failure if record.HasField("failure") else None,
        definition_id=definition_id,
        version=version,
        incident_id=record.incident_id,
        granted_lock=record.granted_lock,
        waits_for_lock=record.waits_for_lock,
    )
    for change in record.changes:
        _add_change(event, change)
    if full and row.payload:
        _add_payloads(event, storage_pb2.PayloadRecord.FromString(row.payload))
    return event


def readable_event(row: EventRow, definition_id: str, version: str, *, full: bool = False) -> saga_pb2.SagaEvent:
    """The same, and of one that cannot be read what its columns say: it must not hide all the others."""
    try:
        return event_message(row, definition_id, version, full=full)
    except Exception as error:
        log.warning("event cannot be read", saga_id=row.saga_id, revision=row.revision, exc_info=error)
    return saga_pb2.SagaEvent(
        namespace=row.namespace,
        saga_id=row.saga_id,
        revision=row.revision,
        cause=row.cause,
        definition_id=definition_id,
        version=version,
        time=timestamp(row.time),
    )


def _add_change(event: saga_pb2.SagaEvent, record: storage_pb2.StepChangeRecord) -> None:
    change = event.changes.add(
        step_id=record.step_id,
        state=record.state,
        attempt=record.attempt,
        compensation_attempt=record.compensation_attempt,
        generation=record.generation,
        may_have_happened=record.may_have_happened,
        failure=record.failure if record.HasField("failure") else None,
        parking_reason=record.parking_reason,
    )
    if StepState(record.state) in WAITING:
        change.delay.FromMilliseconds(record.delay_ms)


def _add_payloads(event: saga_pb2.SagaEvent, record: storage_pb2.PayloadRecord) -> None:
    changes = {change.step_id: change for change in event.changes}
    for brought in record.steps:
        change = changes[brought.step_id]
        if brought.HasField("input"):
            change.input.CopyFrom(brought.input)
        if brought.HasField("output"):
            change.output.CopyFrom(brought.output)


def timestamp(time: datetime | None) -> dict[str, int] | None:
    """A Timestamp, as the constructor of the message around it takes it at least cost."""
    if time is None:
        return None
    since = time - _EPOCH
    return {"seconds": since.days * 86400 + since.seconds, "nanos": since.microseconds * 1000}
