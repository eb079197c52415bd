"""The contract's values as short, safe text."""

from __future__ import annotations

import json

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from sagad.v1 import admin_service_pb2, common_pb2, definition_service_pb2, saga_pb2
from sagad.v1.common_pb2 import Failure, Payload
from sagad_client.payloads import from_value

_STYLES = {
    "RUNNING": "cyan",
    "COMPENSATING": "yellow",
    "PARKED": "bold magenta",
    "SUCCEEDED": "green",
    "COMPENSATED": "yellow",
    "ABANDONED": "red",
    "NOT_STARTED": "dim",
    "BACKING_OFF": "blue",
    "AWAITING_COMPLETION": "blue",
    "REFUSED": "red",
    "UNCERTAIN": "red",
    "SKIPPED": "dim",
    "COMPENSATION_BACKING_OFF": "blue",
    "COMPENSATION_AWAITING_COMPLETION": "blue",
    "COMPENSATION_PARKED": "bold magenta",
}


def printable(text: str) -> str:
    """The text with control characters escaped: what participants write must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def saga_state(state: saga_pb2.SagaState.ValueType) -> Text:
    """A saga's state."""
    return _styled(saga_pb2.SagaState.DESCRIPTOR, state, "SAGA_STATE_")


def step_state(state: saga_pb2.StepState.ValueType) -> Text:
    """A step's state."""
    return _styled(saga_pb2.StepState.DESCRIPTOR, state, "STEP_STATE_")


def lock_state(state: saga_pb2.LockState.ValueType) -> str:
    """`HELD`, `WAITING`, `LATER`."""
    return _name(saga_pb2.LockState.DESCRIPTOR, state, "LOCK_STATE_")


def event_cause(cause: saga_pb2.EventCause.ValueType) -> str:
    """What made a transition happen."""
    return _name(saga_pb2.EventCause.DESCRIPTOR, cause, "EVENT_CAUSE_")


def parking_reason(reason: saga_pb2.ParkingReason.ValueType) -> str:
    """Why something is parked."""
    return _name(saga_pb2.ParkingReason.DESCRIPTOR, reason, "PARKING_REASON_")


def audit_kind(kind: admin_service_pb2.AuditKind.ValueType) -> str:
    """What was done to the server."""
    return _name(admin_service_pb2.AuditKind.DESCRIPTOR, kind, "AUDIT_KIND_")


def fault_kind(kind: definition_service_pb2.FaultKind.ValueType) -> str:
    """What goes wrong on a path."""
    return _name(definition_service_pb2.FaultKind.DESCRIPTOR, kind, "FAULT_KIND_")


def instant(time: Timestamp) -> str:
    """The time in UTC to the millisecond, such as 2026-01-31T12:00:00.250Z."""
    return f"{time.ToDatetime():%Y-%m-%dT%H:%M:%S}.{time.nanos // 1_000_000:03}Z"


def failure(failure: Failure) -> str:
    """A failure in one line: category, reason, message."""
    category = _name(common_pb2.FailureCategory.DESCRIPTOR, failure.category, "FAILURE_CATEGORY_")
    message = f": {failure.message}" if failure.message else ""
    return printable(f"{category} {failure.reason}{message}")


def payload(payload: Payload) -> str:
    """A payload in one line."""
    if payload.WhichOneof("kind") == "data":
        return f"{len(payload.data)} bytes of {printable(payload.content_type) or 'application/octet-stream'}"
    return compact_json(from_value(payload.json))


def compact_json(value: object) -> str:
    """A JSON value in one line."""
    return printable(json.dumps(value, ensure_ascii=False))


def _styled(kind: EnumDescriptor, number: int, prefix: str) -> Text:
    name = _name(kind, number, prefix)
    return Text(name, _STYLES.get(name, ""))


def _name(kind: EnumDescriptor, number: int, prefix: str) -> str:
    value = kind.values_by_number.get(number)
    return value.name.removeprefix(prefix) if value else str(number)  # a newer server knows more
