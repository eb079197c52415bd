"""Sagas and events as the bytes that a store keeps (`sagad.storage.v1`), and back."""

from datetime import datetime
from functools import lru_cache

from sagad.storage.v1 import storage_pb2 as pb
from sagad.v1 import common_pb2
from sagad_server.domain.definition import Definition
from sagad_server.domain.draft import Event, StepChange
from sagad_server.domain.saga import Failure, Saga, Step
from sagad_server.domain.states import EventCause, FailureCategory, ParkingReason, SagaState, StepState
from sagad_server.storage.rows import LoadedSaga, SagaRow

_KEPT = 4096
"""Encodings kept: the steps of most sagas pass through the same few forms."""


def encode_failure(failure: Failure | None) -> common_pb2.Failure | None:
    if failure is None:
        return None
    return common_pb2.Failure(
        category=failure.category,
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
    # Encodings of parts of a message, one after the other, are an encoding of the message.
    steps = b"".join([_encode_step(step) for step in saga.steps])
    if saga.failure is None and saga.timeout_ms is None and not saga.compensating and not saga.waits_for_lock:
        return steps
    rest = pb.SagaRecord(
        compensating=saga.compensating,
        failure=encode_failure(saga.failure),
        timeout_ms=saga.timeout_ms or 0,
        waits_for_lock=saga.waits_for_lock,
    )
    return rest.SerializeToString() + steps


def _encode_step(step: Step) -> bytes:
    """A SagaRecord with nothing but this step."""
    encode = _step_record if step.failure is not None or step.delay_ms else _kept_step_record
    return encode(
        step.state,
        step.attempt,
        step.retries,
        step.generation,
        step.may_have_happened,
        step.succeeded,
        step.compensation_attempt,
        step.compensation_retries,
        step.changed_revision,
        step.since_revision,
        step.delay_ms,
        step.parking_reason or 0,
        step.failure,
    )


def _step_record(
    state: int,
    attempt: int,
    retries: int,
    generation: int,
    may_have_happened: bool,
    succeeded: bool,
    compensation_attempt: int,
    compensation_retries: int,
    changed_revision: int,
    since_revision: int,
    delay_ms: int,
    parking_reason: int,
    failure: Failure | None,
) -> bytes:
    record = pb.StepRecord(
        state=state,
        attempt=attempt,
        retries=retries,
        generation=generation,
        may_have_happened=may_have_happened,
        succeeded=succeeded,
        compensation_attempt=compensation_attempt,
        compensation_retries=compensation_retries,
        changed_revision=changed_revision,
        since_revision=since_revision,
        delay_ms=delay_ms,
        parking_reason=parking_reason,
        failure=encode_failure(failure),
    )
    return pb.SagaRecord(steps=[record]).SerializeToString()


_kept_step_record = lru_cache(_KEPT)(_step_record)


def encode_event(event: Event, definition: Definition) -> bytes:
    """The body of the event's row."""
    changes = b"".join([_encode_change(change, definition) for change in event.changes])
    plain = event.failure is None and not event.actor and not event.reason
    if plain and not event.granted_lock and not event.waits_for_lock:
        return _kept_event_record(event.state, event.cause) + changes
    rest = pb.EventRecord(
        state=event.state,
        cause=event.cause,
        actor=event.actor,
        reason=event.reason,
        failure=encode_failure(event.failure),
        granted_lock=event.granted_lock,
        waits_for_lock=event.waits_for_lock,
    )
    return rest.SerializeToString() + changes


@lru_cache(_KEPT)
def _kept_event_record(state: int, cause: int) -> bytes:
    return pb.EventRecord(state=state, cause=cause).SerializeToString()


def _encode_change(change: StepChange, definition: Definition) -> bytes:
    """An EventRecord with nothing but this change."""
    step = change.step
    encode = _change_record if change.failure is not None or step.delay_ms else _kept_change_record
    return encode(
        definition.steps[change.index].step_id,
        step.state,
        step.attempt,
        step.compensation_attempt,
        step.generation,
        step.may_have_happened,
        step.delay_ms,
        step.parking_reason or 0,
        change.failure,
    )


def _change_record(
    step_id: str,
    state: int,
    attempt: int,
    compensation_attempt: int,
    generation: int,
    may_have_happened: bool,
    delay_ms: int,
    parking_reason: int,
    failure: Failure | None,
) -> bytes:
    record = pb.StepChangeRecord(
        step_id=step_id,
        state=state,
        attempt=attempt,
        compensation_attempt=compensation_attempt,
        generation=generation,
        may_have_happened=may_have_happened,
        failure=encode_failure(failure),
        delay_ms=delay_ms,
        parking_reason=parking_reason,
    )
    return pb.EventRecord(changes=[record]).SerializeToString()


_kept_change_record = lru_cache(_KEPT)(_change_record)


def encode_incident(incident_id: str, reason: str) -> bytes:
    """The event of a saga that is parked as a whole: made without reading the saga."""
    return pb.EventRecord(
        state=SagaState.PARKED, cause=EventCause.INCIDENT, incident_id=incident_id, reason=reason
    ).SerializeToString()


def encode_payload(saga: Saga, event: Event) -> bytes:
    """The data that a transition brought; empty if none."""
    record = pb.PayloadRecord()  # filled in place, which saves the copy of each part
    if event.revision == 1:
        if saga.input is not None:
            record.input.CopyFrom(saga.input)
        record.metadata.update(saga.metadata)
        record.locks.extend(saga.locks)
    for change in event.changes:
        if change.input is not None or change.output is not None:
            added = record.steps.add()
            added.step_id = saga.definition.steps[change.index].step_id
            if change.input is not None:
                added.input.CopyFrom(change.input)
            if change.output is not None:
                added.output.CopyFrom(change.output)
    return record.SerializeToString()


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
        waits_for_lock=record.waits_for_lock,
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
    """A saga with its data, which the journal holds. What it waits for it does not hold yet, even if the lock is its
    own by now."""
    saga = decode_row(loaded.row, definition)
    saga.lock_tokens = {name: token for name, token in loaded.lock_tokens.items() if name != saga.waits_for_lock}
    for row in loaded.events:
        if not row.payload:
            continue
        record = pb.PayloadRecord.FromString(row.payload)
        if row.revision == 1:
            saga.input = record.input if record.HasField("input") else None
            saga.metadata = dict(record.metadata)
            saga.locks = tuple(record.locks)
        for payload in record.steps:
            step = saga.steps[definition.index[payload.step_id]]
            if payload.HasField("input"):
                step.input = payload.input
            if payload.HasField("output"):
                step.output = payload.output
    return saga


def event_times(loaded: LoadedSaga) -> dict[int, datetime]:
    return {row.revision: row.time for row in loaded.events}
