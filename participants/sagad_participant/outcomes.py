"""What a handler can answer: a result, Pending, or Refused. And how that travels."""

import re
from collections.abc import Mapping

from sagad.v1 import common_pb2
from sagad_participant.payloads import payload_of, struct_of

MAX_MESSAGE_CHARACTERS = 1024
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}\Z")


class Pending(Exception):  # noqa: N818 - it is an answer, not an error
    """Return or raise it (the class, or an instance): accepted, the answer comes later through `barrier.completion`.

    What the handler did on `call.connection` is committed, with the fact that the work is pending.
    """


class Refused(Exception):  # noqa: N818 - it is an answer, not an error
    """Raise it to refuse. The handler's transaction is rolled back.

    reason: a stable UPPER_SNAKE_CASE name, at most 63 characters. message: for a person; cut after 1,024 characters.
    retryable: the same call may succeed later; nothing is remembered. Otherwise the refusal is final for this key: it
    is written into the barrier, and every repetition gets it again. retry_after_s: the pause asked for, if retryable.
    details: JSON, at most 4 KiB. Raises ValueError for a malformed reason or retry_after_s.
    """

    def __init__(
        self,
        reason: str,
        message: str = "",
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(reason, message)
        if not _REASON.match(reason):
            raise ValueError(f"reason {reason!r} is not UPPER_SNAKE_CASE of 1-63 characters")
        if retry_after_s is not None and not (retryable and retry_after_s >= 0):
            raise ValueError(f"retry_after_s {retry_after_s!r} must be 0 or more, and goes only with retryable=True")
        self.reason = reason
        self.message = message
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.details = details


def answer_of(result: object) -> common_pb2.StepOutcome:
    """A handler's result as an outcome. Raises BadAnswer if it cannot be sent."""
    if result is Pending or isinstance(result, Pending):
        return common_pb2.StepOutcome(pending=common_pb2.StepPending())
    return success_of(result)


def success_of(output: object = None) -> common_pb2.StepOutcome:
    """Success with an output, which None leaves out. Raises BadAnswer if it cannot be sent."""
    success = common_pb2.StepSuccess()
    if output is not None:
        success.output.CopyFrom(payload_of(output))
    return common_pb2.StepOutcome(success=success)


def failure_of(refusal: Refused, *, never_executed: bool) -> common_pb2.StepOutcome:
    """A refusal as an outcome. Raises BadAnswer for details that cannot be sent."""
    failure = common_pb2.StepFailure(
        reason=refusal.reason,
        message=_shown(refusal.message),
        retryable=refusal.retryable,
        never_executed=never_executed,
    )
    if refusal.details is not None:
        failure.details.CopyFrom(struct_of(refusal.details))
    if refusal.retry_after_s is not None:
        failure.retry_after.FromNanoseconds(round(refusal.retry_after_s * 1e9))
    return common_pb2.StepOutcome(failure=failure)


def _shown(message: str) -> str:
    """A message is for reading: what cannot be stored in it is replaced, not refused."""
    readable = message.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return readable[:MAX_MESSAGE_CHARACTERS]


ALREADY_COMPENSATED = failure_of(
    Refused("ALREADY_COMPENSATED", "the step was compensated before it arrived, so it must not run any more"),
    never_executed=True,
)
"""The answer to an action that comes after its compensation."""

STEP_CLOSED = failure_of(
    Refused("STEP_CLOSED", "the step was not done yet, and has been compensated since"), never_executed=False
)
"""The answer to an action that was compensated while its end was open: something may have happened, and was undone."""
