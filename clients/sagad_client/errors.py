"""The errors of sagad as Python exceptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


class Violation(NamedTuple):
    """One fault of a request."""

    field: str
    """Path of the field, such as `definition.steps[2].timeout`."""
    description: str
    """What is wrong with it."""


class SagadError(Exception):
    """A call was refused by sagad, or could not be made. The subclasses say which gRPC code it was."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        """The gRPC code."""
        self.message = message
        """What was wrong, for a person."""
        self.reason = reason
        """Stable UPPER_SNAKE_CASE name of the cause; empty where the answer is not sagad's own, as of a network."""
        self.violations = list(violations)
        """Every fault of an invalid request."""
        self.retry_after_s = retry_after_s
        """When the server suggests to try again, in seconds from its answer; None where it does not."""
        self.metadata = dict(metadata or {})
        """More facts about the cause, such as the failure's category."""

    def __str__(self) -> str:
        name = f"{self.code.name} {self.reason}" if self.reason and self.reason != self.code.name else self.code.name
        untold = [fault for fault in self.violations if fault.description not in self.message]
        return f"{name}: {self.message}" + "".join(f"\n  {fault.field}: {fault.description}" for fault in untold)


class NotFound(SagadError):  # noqa: N818 - named, as those below, after gRPC's codes
    """There is no such saga or definition."""


class AlreadyExists(SagadError):  # noqa: N818
    """The id is taken, with other content."""


class InvalidArgument(SagadError):  # noqa: N818
    """The request breaks a rule of the contract; `violations` names every fault."""


class FailedPrecondition(SagadError):  # noqa: N818
    """The saga or definition is in a state that does not allow the call; `reason` says which."""


class Aborted(SagadError):  # noqa: N818
    """The saga has moved on since the revision that was given."""


class ResourceExhausted(SagadError):  # noqa: N818
    """A limit is reached: of rate (then there is `retry_after_s`), of size or of number."""


class Unavailable(SagadError):  # noqa: N818
    """The server cannot be reached, has died, or cannot do it now. What was asked may have happened."""


class PermissionDenied(SagadError):  # noqa: N818
    """The caller may not do this, or showed a wrong completion token."""


class OutOfRange(SagadError):  # noqa: N818
    """The revision to watch from is purged, or not yet known."""


class DeadlineExceeded(SagadError):  # noqa: N818
    """The call took longer than its timeout. What was asked may have happened, or may happen yet."""


class Internal(SagadError):  # noqa: N818
    """A fault of the server, or of something in between."""


_BY_CODE: dict[grpc.StatusCode, type[SagadError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # Nobody here has cancelled the call, or there would be no status: the server died while it had it.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: Internal,
}


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.aio.AioRpcError) -> SagadError:
    """Read gRPC's error and the google.rpc details that sagad sends with it."""
    return _read(error.code(), error.details() or "", _status_of(error))


def from_status(status: status_pb2.Status) -> SagadError:
    """Read an error that is part of a message."""
    return _read(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status)


def _read(code: grpc.StatusCode, message: str, status: status_pb2.Status) -> SagadError:
    reason, violations, retry_after_s, metadata = "", [], None, {}
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest.FromString(detail.value)
            violations += [Violation(fault.field, fault.description) for fault in request.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after_s = delay.seconds + delay.nanos / 1e9
    return _BY_CODE.get(code, SagadError)(
        message or "no message",
        code=code,
        reason=reason,
        violations=violations,
        retry_after_s=retry_after_s,
        metadata=metadata,
    )


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        status = None  # details that contradict the code were not sagad's: the code alone is what is known
    return status or status_pb2.Status()
