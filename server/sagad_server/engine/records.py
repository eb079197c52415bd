"""Sagas and events as the bytes that a store keeps (`sagad.storage.v1`), and back."""

from datetime import datetime

from sagad.storage.v1 import storage_pb2 as pb
from sagad.v1 import common_pb2
from sagad_server.domain.definition import Definition
from sagad_server.domain.draft import Event, StepChange
from sagad_server.domain.saga import Failure, Saga, Step
from sagad_server.domain.states import EventCause, FailureCategory, ParkingReason, SagaState, StepState
from sagad_server.storage.store import LoadedSaga, SagaRow


def encode_failure(failure: Failure | None) -> common_pb2.Failure | None:
    if failure is None:
        return None
    return common_pb2.Failure(
        category=failure.category.value,
        reason=failure.reason,
        message=failure.message,
        details=failure.details,
        step_id=failure.step_id,
    )


def decode_failure(message: common_pb2.Failure) -> Failure:
    return Failure(
        FailureCategory(message.category),
        message.reason,
        message.message,
        message.step_id,
        message.details if message.HasField("details") else None,
    )


def encode_saga(saga: Saga) -> bytes:
    """The body of the saga's row: control state only."""
    record = pb.SagaRecord(
        compensating=saga.compensating,
        steps=[_encode_step(step) for step in saga.steps],
        failure=encode_failure(saga.failure),
        timeout_ms=saga.timeout_ms or 0,
    )
    return record.SerializeToString()


def _encode_step(step: Step) -> pb.StepRecord:
    if step.state is StepState.NOT_STARTED and step.generation == 1:
        return pb.StepRecord(state=1, generation=1)
    return pb.StepRecord(
        state=step.state.value,
        attempt=step.attempt,
        retries=step.retries,
        generation=step.generation,
        may_have_happened=step.may_have_happened,
        succeeded=step.succeeded,
        compensation_attempt=step.compensation_attempt,
        compensation_retries=step.compensation_retries,
        changed_revision=step.changed_revision,
        since_revision=step.since_revision,
        delay_ms=step.delay_ms,
        parking_reason=step.parking_reason.value if step.parking_reason is not None else 0,
        failure=encode_failure(step.failure),
    )


def encode_event(event: Event, definition: Definition) -> bytes:
    """The body of the event's row."""
    record = pb.EventRecord(
        state=event.state.value,
        cause=event.cause.value,
        actor=event.actor,
        reason=event.reason,
        changes=[_encode_change(change, definition) for change in event.changes],
        failure=encode_failure(event.failure),
    )
    return record.SerializeToString()


def _encode_change(change: StepChange, definition: Definition) -> pb.StepChangeRecord:
    step = change.step
    return pb.StepChangeRecord(
        step_id=definition.steps[change.index].step_id,
        state=step.state.value,
        attempt=step.attempt,
        compensation_attempt=step.compensation_attempt,
        generation=step.generation,
        may_have_happened=step.may_have_happened,
        failure=encode_failure(change.failure),
        delay_ms=step.delay_ms,
        parking_reason=step.parking_reason.value if step.parking_reason is not None else 0,
    )


def encode_incident(incident_id: str, reason: str) -> bytes:
    """The event of a saga that is parked as a whole: made without reading the saga."""
    return pb.EventRecord(
        state=SagaState.PARKED.value, cause=EventCause.INCIDENT.value, incident_id=incident_id, reason=reason
    ).SerializeToString()


def encode_payload(saga: Saga, event: Event) -> bytes:
    """The data that a transition brought; empty if none."""
    steps = [
        pb.StepPayload(step_id=saga.definition.steps[c.index].step_id, input=c.input, output=c.output)
        for c in event.changes
        if c.input is not None or c.output is not None
    ]
    if event.revision == 1:
        return pb.PayloadRecord(input=saga.input, metadata=saga.metadata, steps=steps).SerializeToString()
    return pb.PayloadRecord(steps=steps).SerializeToString() if steps else b""


def parking_mask(saga: Saga) -> int:
    """Bit r is set for each reason r among the saga's parkings."""
    mask = 0
    if saga.ended:
        return mask
    if saga.incident is not None:
        mask = 1 << saga.incident
    for step in saga.steps:
        if step.parking_reason is not None:
            mask |= 1 << step.parking_reason
    return mask


def decode_row(row: SagaRow, definition: Definition) -> Saga:
    """A saga's control state alone, as lists show it."""
    record = pb.SagaRecord.FromString(row.body)
    if len(record.steps) != len(definition.steps):
        raise ValueError(f"the row has {len(record.steps)} steps, its definition {len(definition.steps)}")
    saga = Saga(
        definition=definition,
        namespace=row.namespace,
        saga_id=row.saga_id,
        uid=row.uid,
        input=None,
        labels=row.labels,
        timeout_ms=record.timeout_ms or None,
        state=SagaState(row.state),
        revision=row.revision,
        compensating=record.compensating,
        steps=[_decode_step(step) for step in record.steps],
        failure=decode_failure(record.failure) if record.HasField("failure") else None,
    )
    if row.incident_id:
        no_progress = row.parking_mask & 1 << ParkingReason.NO_PROGRESS
        saga.incident = ParkingReason.NO_PROGRESS if no_progress else ParkingReason.INTERNAL
        saga.incident_id = row.incident_id
    return saga


def _decode_step(record: pb.StepRecord) -> Step:
    return Step(
        state=StepState(record.state),
        attempt=record.attempt,
        retries=record.retries,
        generation=record.generation,
        may_have_happened=record.may_have_happened,
        succeeded=record.succeeded,
        compensation_attempt=record.compensation_attempt,
        compensation_retries=record.compensation_retries,
        changed_revision=record.changed_revision,
        since_revision=record.since_revision,
        delay_ms=record.delay_ms,
        parking_reason=ParkingReason(record.parking_reason) if record.parking_reason else None,
        failure=decode_failure(record.failure) if record.HasField("failure") else None,
    )


def decode_saga(loaded: LoadedSaga, definition: Definition) -> Saga:
    """A saga with its data, which the journal holds."""
    saga = decode_row(loaded.row, definition)
    for row in loaded.events:
        if not row.payload:
            continue
        record = pb.PayloadRecord.FromString(row.payload)
        if row.revision == 1:
            saga.input = record.input if record.HasField("input") else None
            saga.metadata = dict(record.metadata)
        for payload in record.steps:
            step = saga.steps[definition.index[payload.step_id]]
            if payload.HasField("input"):
                step.input = payload.input
            if payload.HasField("output"):
                step.output = payload.output
    return saga


def event_times(loaded: LoadedSaga) -> dict[int, datetime]:
    return {row.revision: row.time for row in loaded.events}
