"""What a pending step is answered with."""

from __future__ import annotations

from collections.abc import Mapping

from sagad.v1.common_pb2 import StepFailure, StepOutcome, StepSuccess
from sagad_client.durations import DurationLike, to_duration
from sagad_client.payloads import Json, PayloadLike, to_payload, to_struct


def succeeded(output: PayloadLike = None) -> StepOutcome:
    """The effect is done and durable; `output` goes to the steps that depend on this one."""
    return StepOutcome(success=StepSuccess(output=to_payload(output, "output")))


def failed(
    reason: str,
    message: str = "",
    *,
    details: Mapping[str, Json] | None = None,
    retryable: bool = False,
    retry_after: DurationLike | None = None,
) -> StepOutcome:
    """The participant has refused, and nothing has remained.

    Args:
        reason: stable UPPER_SNAKE_CASE name, at most 63 characters.
        message: for a person, at most 1,024 characters.
        details: a JSON object of at most 4 KiB.
        retryable: the same call may succeed later.
        retry_after: pause that is asked for before the next attempt, a timedelta or seconds.
    """
    failure = StepFailure(
        reason=reason,
        message=message,
        details=None if details is None else to_struct(details, "details"),
        retryable=retryable,
        retry_after=None if retry_after is None else to_duration(retry_after),
    )
    return StepOutcome(failure=failure)
