"""A saga as the read model keeps it, and what events make of it.

Pure. `sagad_client.report` reads these documents: what a field means must not change. Nothing that people choose is a
field's name, and times are what MongoDB can hold, in milliseconds, so that a document that was stored is the one that
goes on.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TypedDict

from google.protobuf.timestamp_pb2 import Timestamp

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1.saga_pb2 import SagaEvent, StepChange
from sagad_server.projection.faults import EventsMissing

_SIGNIFICANT_DIGITS = 3
_ENDS = (saga_pb2.SAGA_STATE_SUCCEEDED, saga_pb2.SAGA_STATE_COMPENSATED, saga_pb2.SAGA_STATE_ABANDONED)


class LabelDocument(TypedDict):
    key: str
    value: str


class StepDocument(TypedDict):
    """A step that has begun, or was skipped."""

    step_id: str
    state: str
    attempt: int
    compensation_attempt: int
    parking_reason: str
    """Empty: it is not parked."""


class FailureDocument(TypedDict):
    """Why the saga turned round."""

    step_id: str
    """Empty: the saga as a whole did."""
    category: str
    reason: str


class StepFailuresDocument(TypedDict):
    """How many attempts of a step, or of its compensation, failed on a day."""

    day: str
    step_id: str
    category: str
    count: int


class SagaDocument(TypedDict):
    """Enums are the names of the contract without their prefix. Days are those of UTC, as 2026-01-31."""

    _id: str
    """The uid: a saga_id may be used again after a purge."""
    namespace: str
    saga_id: str
    definition_id: str
    version: str
    labels: list[LabelDocument]
    state: str
    revision: int
    complete: bool
    """No event was missing so far."""
    create_time: datetime | None
    """None: the first event was missing."""
    create_day: str
    update_time: datetime
    end_time: datetime | None
    """Of the last end; None while the saga moves."""
    duration_ms: int | None
    """From create_time to end_time."""
    rounded_duration_ms: int | None
    """To three digits, so within 0.5 %: few enough values that quantiles can be counted."""
    failure: FailureDocument | None
    steps: list[StepDocument]
    failures: list[StepFailuresDocument]


def fold(
    known: Mapping[str, SagaDocument], events: Iterable[SagaEvent], *, marks_gaps: bool = False
) -> dict[str, SagaDocument]:
    """The documents that change, by uid, given those that the events' sagas have. What they have already of the events
    changes nothing. Raises EventsMissing, unless gaps are to be marked."""
    changed: dict[str, SagaDocument] = {}
    for event in events:
        before = changed.get(event.uid) or known.get(event.uid)
        last = 0 if before is None else before["revision"]
        if event.revision <= last:
            continue
        if event.revision > last + 1 and not marks_gaps:
            raise EventsMissing(event, last)
        changed[event.uid] = _after(before or _unknown(event), event)
    return changed


def _unknown(event: SagaEvent) -> SagaDocument:
    """A saga of which nothing is known but that the event is one of its."""
    first = event.revision == 1
    time = _time(event.time)
    return SagaDocument(
        _id=event.uid,
        namespace=event.namespace,
        saga_id=event.saga_id,
        definition_id="",
        version="",
        labels=[LabelDocument(key=key, value=value) for key, value in sorted(event.labels.items())],
        state="",
        revision=0,
        complete=True,
        create_time=time if first else None,
        create_day=_day(time) if first else "",
        update_time=time,
        end_time=None,
        duration_ms=None,
        rounded_duration_ms=None,
        failure=None,
        steps=[],
        failures=[],
    )


def _after(before: SagaDocument, event: SagaEvent) -> SagaDocument:
    """The document with one event more; `before` stays what it is."""
    time = _time(event.time)
    after = before.copy()
    after["revision"] = event.revision
    after["complete"] = before["complete"] and event.revision == before["revision"] + 1
    after["update_time"] = time
    # A purged saga has none any more.
    after["definition_id"] = event.definition_id or before["definition_id"]
    after["version"] = event.version or before["version"]
    if event.state:  # else the event could not be read in the journal
        after["state"] = saga_pb2.SagaState.Name(event.state).removeprefix("SAGA_STATE_")
        _set_end(after, time if event.state in _ENDS else None)
    if event.HasField("failure"):
        after["failure"] = FailureDocument(
            step_id=event.failure.step_id, category=_category(event.failure), reason=event.failure.reason
        )
    after["steps"] = _steps(before["steps"], event.changes)
    after["failures"] = _failures(before["failures"], event.changes, _day(time))
    return after


def _set_end(document: SagaDocument, time: datetime | None) -> None:
    """An end stays where it is, until the saga moves again."""
    create_time = document["create_time"]
    if time is not None and document["end_time"] is not None:
        return
    if time is None or create_time is None:
        document["end_time"], document["duration_ms"], document["rounded_duration_ms"] = time, None, None
        return
    time = max(time, create_time)
    span = time - create_time
    duration_ms = (span.days * 86_400 + span.seconds) * 1000 + span.microseconds // 1000
    document["end_time"] = time
    document["duration_ms"] = duration_ms
    document["rounded_duration_ms"] = rounded(duration_ms)


def rounded(value: int) -> int:
    """To three significant digits."""
    unit = int(10 ** max(0, len(str(value)) - _SIGNIFICANT_DIGITS))
    return (value + unit // 2) // unit * unit


def _steps(before: list[StepDocument], changes: Iterable[StepChange]) -> list[StepDocument]:
    steps = {step["step_id"]: step for step in before}
    for change in changes:
        parking = saga_pb2.ParkingReason.Name(change.parking_reason) if change.parking_reason else ""
        steps[change.step_id] = StepDocument(
            step_id=change.step_id,
            state=saga_pb2.StepState.Name(change.state).removeprefix("STEP_STATE_"),
            attempt=change.attempt,
            compensation_attempt=change.compensation_attempt,
            parking_reason=parking.removeprefix("PARKING_REASON_"),
        )
    return list(steps.values())


def _failures(
    before: list[StepFailuresDocument], changes: Iterable[StepChange], day: str
) -> list[StepFailuresDocument]:
    """At most one for each day, step and category, however often a step is called."""
    counts = {(each["day"], each["step_id"], each["category"]): each["count"] for each in before}
    for change in changes:
        if change.HasField("failure"):
            key = day, change.step_id, _category(change.failure)
            counts[key] = counts.get(key, 0) + 1
    return [
        StepFailuresDocument(day=day, step_id=step_id, category=category, count=count)
        for (day, step_id, category), count in counts.items()
    ]


def _category(failure: common_pb2.Failure) -> str:
    return common_pb2.FailureCategory.Name(failure.category).removeprefix("FAILURE_CATEGORY_")


def _time(time: Timestamp) -> datetime:
    exact = time.ToDatetime(UTC)
    return exact.replace(microsecond=exact.microsecond // 1000 * 1000)


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d}"
