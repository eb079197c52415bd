"""The contract's messages from what the engine and the store have, and back. No payload is ever turned into a dict."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sagad.v1 import definition_pb2, saga_pb2
from sagad_server.api.locks import own_locks
from sagad_server.domain.saga import parkings
from sagad_server.domain.states import ENDED, ParkingReason, SagaState
from sagad_server.engine.ports import Snapshot, Tombstone
from sagad_server.engine.records import encode_failure
from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.events import WAITING, timestamp
from sagad_server.storage.lists import Stats
from sagad_server.storage.rows import SagaRow
from sagad_server.storage.selection import SagaFilter

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def saga_message(saga: Snapshot | Tombstone, *, full: bool = False) -> saga_pb2.Saga:
    """A saga; payloads and metadata only if `full`."""
    if isinstance(saga, Tombstone):
        return _tombstone_message(saga)
    return _snapshot_message(saga, full=full)


def _snapshot_message(snapshot: Snapshot, *, full: bool) -> saga_pb2.Saga:
    # On StartSaga's way: times as dicts and steps in place save the copy of a message each.
    saga = snapshot.saga
    message = saga_pb2.Saga(
        namespace=saga.namespace,
        saga_id=saga.saga_id,
        uid=str(saga.uid),
        definition_id=saga.definition.definition_id,
        version=saga.definition.version,
        state=saga.state,
        revision=saga.revision,
        labels=saga.labels,
        failure=encode_failure(saga.failure),
        create_time=timestamp(snapshot.create_time),
        update_time=timestamp(snapshot.update_time),
        end_time=timestamp(snapshot.end_time),
        epoch=snapshot.epoch,
    )
    _add_steps(message, snapshot, full=full)
    if saga.timeout_ms is not None:
        message.timeout.FromMilliseconds(saga.timeout_ms)
        message.deadline_time.FromDatetime(snapshot.create_time + timedelta(milliseconds=saga.timeout_ms))
    if full:
        if saga.input is not None:
            message.input.CopyFrom(saga.input)
        message.metadata.update(saga.metadata)
    _add_parkings(message, snapshot)
    if saga.locks:
        message.locks.extend(own_locks(saga))
    return message


def _add_steps(message: saga_pb2.Saga, snapshot: Snapshot, *, full: bool) -> None:
    saga = snapshot.saga
    add = message.steps.add
    for node, step in zip(saga.definition.steps, saga.steps, strict=True):
        added = add(
            step_id=node.step_id,
            state=step.state,
            attempt=step.attempt,
            compensation_attempt=step.compensation_attempt,
            generation=step.generation,
            may_have_happened=step.may_have_happened,
        )
        if step.failure is not None:
            added.failure.CopyFrom(encode_failure(step.failure))
        if step.state in WAITING:
            since = _instant(snapshot, step.changed_revision)
            if since is not None:
                added.next_attempt_time.FromDatetime(since + timedelta(milliseconds=step.delay_ms))
        if full:
            if step.input is not None:  # else it is the saga's, which is sent once
                added.input.CopyFrom(step.input)
            if step.output is not None:
                added.output.CopyFrom(step.output)


def _add_parkings(message: saga_pb2.Saga, snapshot: Snapshot) -> None:
    saga = snapshot.saga
    for parking in parkings(saga):
        message.parkings.add(
            reason=parking.reason,
            step_id="" if parking.step is None else saga.definition.steps[parking.step].step_id,
            park_time=timestamp(_instant(snapshot, parking.since_revision)),
            resumes_as=parking.resumes_as,
            allowed_calls=parking.allowed_calls,
            incident_id=saga.incident_id if parking.step is None else "",
        )


def _tombstone_message(tombstone: Tombstone) -> saga_pb2.Saga:
    namespace, saga_id = tombstone.key
    return saga_pb2.Saga(
        namespace=namespace,
        saga_id=saga_id,
        uid=str(tombstone.uid),
        state=tombstone.state,
        revision=tombstone.revision,
        create_time=timestamp(tombstone.create_time),
        update_time=timestamp(tombstone.update_time),
        end_time=timestamp(tombstone.end_time),
        epoch=tombstone.epoch,
        purged=True,
    )


def row_message(row: SagaRow) -> saga_pb2.Saga:
    """A saga whose body cannot be read (that is why it is parked as a whole): what its columns say."""
    message = saga_pb2.Saga(
        namespace=row.namespace,
        saga_id=row.saga_id,
        uid=str(row.uid),
        definition_id=row.definition_id,
        version=row.version,
        state=row.state,
        revision=row.revision,
        labels=row.labels,
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        end_time=timestamp(row.end_time),
        epoch=row.epoch,
    )
    if row.incident_id:
        no_progress = row.parking_mask >> ParkingReason.NO_PROGRESS & 1
        message.parkings.add(
            reason=ParkingReason.NO_PROGRESS if no_progress else ParkingReason.INTERNAL,
            park_time=timestamp(row.park_time),
            incident_id=row.incident_id,
        )
    return message


def _instant(snapshot: Snapshot, revision: int) -> datetime | None:
    """When a transition was made; None where the journal was not read, and it is neither the first nor the last."""
    known = snapshot.times.get(revision)
    return snapshot.update_time if known is None and revision == snapshot.saga.revision else known


def read_filter(message: saga_pb2.SagaFilter) -> SagaFilter:
    """A filter without faults (see `RequestChecker.saga_filter`) as the store takes it."""
    mask = 0
    for reason in message.parking_reasons:
        mask |= 1 << reason
    return SagaFilter(
        states=tuple(message.states),
        definition_id=message.definition_id,
        version=message.version,
        labels=dict(message.labels),
        create_time_min=read_time(message, "create_time_min"),
        create_time_max=read_time(message, "create_time_max"),
        end_time_min=read_time(message, "end_time_min"),
        end_time_max=read_time(message, "end_time_max"),
        parking_mask=mask,
        categories=tuple(message.categories),
    )


def read_time(message: Message, field: str) -> datetime | None:
    """Rounded up to the store's microseconds: exact for an inclusive minimum and for an exclusive maximum."""
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    try:
        return _EPOCH + timedelta(seconds=time.seconds, microseconds=-(-time.nanos // 1000))
    except OverflowError:  # the last microsecond of the year 9999, rounded up
        return datetime.max.replace(tzinfo=UTC)


def definition_body(message: definition_pb2.Definition) -> bytes:
    """The immutable part of a definition, always the same bytes for the same content."""
    content = definition_pb2.Definition()
    content.CopyFrom(message)
    content.ClearField("active")
    content.ClearField("create_time")
    content.DiscardUnknownFields()
    return content.SerializeToString(deterministic=True)


def definition_message(stored: StoredDefinition) -> definition_pb2.Definition:
    """A definition as it is shown."""
    message = definition_pb2.Definition.FromString(stored.body)
    message.active = stored.active
    message.create_time.FromDatetime(stored.create_time)
    return message


def stats_message(stats: Stats) -> saga_pb2.SagaStats:
    """Counts of sagas, and what follows from them."""
    message = saga_pb2.SagaStats(
        total=sum(stats.by_state.values()),
        by_state=state_counts(stats.by_state.items()),
        duration_p50=_duration(stats.duration_p50),
        duration_p90=_duration(stats.duration_p90),
        duration_p99=_duration(stats.duration_p99),
        oldest_running_time=timestamp(stats.oldest_running_time),
        ended_since=timestamp(stats.ended_since),
    )
    ended = sum(count for state, count in stats.by_state.items() if state in ENDED)
    if ended:
        message.success_rate = stats.by_state.get(SagaState.SUCCEEDED, 0) / ended
    return message


def state_counts(counts: Iterable[tuple[int, int]]) -> list[saga_pb2.SagaStateCount]:
    """Pairs (state, count) in the order of states; those without sagas are left out."""
    return [saga_pb2.SagaStateCount(state=state, count=count) for state, count in sorted(counts) if count]


def _duration(span: timedelta | None) -> Duration | None:
    if span is None:
        return None
    duration = Duration()
    duration.FromTimedelta(span)
    return duration
