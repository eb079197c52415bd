# ruff: noqa: N818 - the names are those of gRPC's codes
"""The one tree of errors that the domain, the engine and the stores raise. The api maps each class to a gRPC status.

A message is for the person who made the request: what was wrong, which value, which bound, what to do next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request: the field's path, such as `definition.steps[2].timeout`, and what is wrong with it."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}"


class SagadError(Exception):
    """Something that a caller can meet.

    `reason` is a stable UPPER_SNAKE_CASE name that programs may rely on; each class has a default. `metadata` are facts
    for programs (strings), `violations` every fault of an invalid request, `retry_after_ms` a pause after which a
    repetition may help (None: it does not help).
    """

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.violations = list(violations)
        self.retry_after_ms = retry_after_ms


class InvalidArgument(SagadError):
    """The request is wrong whatever the state of the system; `violations` names every fault."""

    default_reason = "INVALID_REQUEST"

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> "InvalidArgument":
        """The error for these faults, with all of them in its message."""
        count = "1 fault" if len(violations) == 1 else f"{len(violations)} faults"
        return cls(f"{count} in the request: " + "; ".join(map(str, violations)), violations=violations)


class NotFound(SagadError):
    """What the request names does not exist."""

    default_reason = "NOT_FOUND"


class AlreadyExists(SagadError):
    """The id is taken by something with other content."""

    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(SagadError):
    """The request is fine, but not in the state that the saga or the system is in."""

    default_reason = "FAILED_PRECONDITION"


class Aborted(SagadError):
    """The caller acts on an old revision: read again, decide again."""

    default_reason = "REVISION_CONFLICT"


class PermissionDenied(SagadError):
    """The caller has not shown that it may do this."""

    default_reason = "PERMISSION_DENIED"


class OutOfRange(SagadError):
    """The request asks for what is no more, or is not yet."""

    default_reason = "OUT_OF_RANGE"


class ResourceExhausted(SagadError):
    """A configured bound is reached."""

    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(SagadError):
    """Not now: something that sagad needs is away. The same request may succeed later."""

    default_reason = "UNAVAILABLE"


class Elsewhere(Unavailable):
    """Another node drives the saga: it is asked in this one's place, or the caller asks again."""

    default_reason = "TAKING_OVER"

    def __init__(
        self,
        message: str,
        *,
        owner: UUID | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_ms: int | None = 250,
    ) -> None:
        super().__init__(
            message, reason=reason, metadata=metadata, violations=violations, retry_after_ms=retry_after_ms
        )
        self.owner = owner


class Internal(SagadError):
    """A fault of sagad itself. The message names an incident id to look for in the log, and nothing more."""

    default_reason = "INTERNAL"
