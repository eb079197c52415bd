"""The one map from what can go wrong to what a client is told: a gRPC status with google.rpc details."""

from dataclasses import dataclass
from uuid import uuid4

import grpc
import grpc.aio
import structlog
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sagad_server.domain import errors
from sagad_server.domain.errors import SagadError, Violation

log = structlog.get_logger(__name__)

DOMAIN = "sagad"
DETAILS_KEY = "grpc-status-details-bin"
# Many clients (those on gRPC's C core, Java) take at most 8 KiB of trailers, and lose the whole status if there is
# more. Binary ones may travel as base64, which is a third longer: 1,000 + 4/3 * 4,900 bytes leave some room.
MAX_MESSAGE_BYTES = 1000
MAX_DETAILS_BYTES = 4900

_CODES: dict[type[SagadError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Internal: grpc.StatusCode.INTERNAL,
}


@dataclass(slots=True, frozen=True)
class Refusal:
    """What a call ends with instead of a response."""

    code: grpc.StatusCode
    status: status_pb2.Status
    """The same code, with the message and all details."""

    @property
    def message(self) -> str:
        text: str = self.status.message
        return text

    @property
    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        return ((DETAILS_KEY, self.status.SerializeToString()),)


def refusal(error: SagadError) -> Refusal:
    """The status of an error that a caller can meet: always ErrorInfo; BadRequest and RetryInfo where they apply."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)
    message = _cut(error.message, MAX_MESSAGE_BYTES)
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.append(_packed(info))
    if error.retry_after_ms is not None:
        delay = Duration(seconds=error.retry_after_ms // 1000, nanos=error.retry_after_ms % 1000 * 1_000_000)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    if error.violations:
        status.details.append(_packed(_bad_request(error.violations, MAX_DETAILS_BYTES - status.ByteSize())))
    return Refusal(code, status)


def unexpected(method: str, error: BaseException) -> Refusal:
    """The status of a fault of sagad itself: everything about it goes to the log, only its number to the client."""
    incident_id = uuid4().hex
    log.error("request failed", method=method, incident_id=incident_id, exc_info=error)
    text = f"sagad failed on this request: its log has more under incident {incident_id}"
    return refusal(errors.Internal(text, metadata={"incident_id": incident_id}))


def read_refusal(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """The reason and the message that another node has refused a call with."""
    info = error_details_pb2.ErrorInfo(reason=error.code().name)  # where the node itself has not answered
    for detail in read_status(error).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    return info.reason, error.details() or ""


def read_retry_after_s(error: grpc.aio.AioRpcError) -> float:
    """When another node says that the call may be repeated; 0 if it does not."""
    for detail in read_status(error).details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            info = error_details_pb2.RetryInfo.FromString(detail.value)
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return 0.0


def read_status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """What another node has refused a call with."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    if isinstance(details, bytes):
        return status_pb2.Status.FromString(details)
    return status_pb2.Status(code=error.code().value[0], message=error.details())


def _bad_request(violations: list[Violation], room: int) -> error_details_pb2.BadRequest:
    """As many faults as there is room for, and the number of the rest."""
    request = error_details_pb2.BadRequest()
    room -= 200  # for the type's name, and for the last line
    for i, violation in enumerate(violations):
        one = error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
        room -= one.ByteSize() + 4
        if room < 0:
            request.field_violations.add(description=f"{len(violations) - i} more faults: correct these first")
            break
        request.field_violations.append(one)
    return request


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed


def _cut(text: str, limit: int) -> str:
    """At most `limit` bytes as gRPC sends them: what is not printable ASCII takes three for each of its bytes."""
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return text
    size = 0
    for i, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        if size > limit - 3:
            return text[:i] + "..."
    return text
