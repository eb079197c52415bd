"""What can happen to a saga: the inputs of `decide`, and the outcomes of calls."""

from dataclasses import dataclass

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.saga import Failure
from sagad_server.domain.states import Direction, FailureCategory

# gRPC status codes by what they say about the call (design: "may it have happened?").
DEFINITE_CODES = frozenset(
    {
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
        "OUT_OF_RANGE",
    }
)
FINAL_AMBIGUOUS_CODES = frozenset({"ALREADY_EXISTS", "DATA_LOSS"})
NO_ANSWER_CODES = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"})
"""Definite, but of the deployment and not of the business: what must succeed in the end does not take them for an
answer."""

_VALIDATION_CODES = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE"})
_BUSINESS_CODES = frozenset({"FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS"})


@dataclass(slots=True)  # made for every call, and freezing makes that three times as slow
class Success:
    """The effect is done."""

    output: Payload | None


@dataclass(slots=True, frozen=True)
class Pending:
    """Accepted; CompleteStep brings the answer."""


@dataclass(slots=True, frozen=True)
class NotSent:
    """The call never left: no attempt, no ambiguity. It is tried again after `retry_after_ms` at the earliest."""

    message: str
    retry_after_ms: int = 0
    uses_retry: bool = False
    """The participant is known not to answer: for what max_retries bounds, this is one of them, or a participant that
    is down for long would hold a saga for ever."""


@dataclass(slots=True, frozen=True)
class Failed:
    """The call failed. `code` is the gRPC code, or empty for a participant's own `failure`."""

    failure: Failure
    code: str = ""
    ambiguous: bool = False
    retryable: bool = False
    never_executed: bool = False
    retry_after_ms: int = 0

    @property
    def is_answer(self) -> bool:
        """The participant itself has spoken about the business."""
        return not self.code or (not self.ambiguous and self.code not in NO_ANSWER_CODES)


Outcome = Success | Pending | NotSent | Failed


def failed_with_code(code: str, message: str, retry_after_ms: int = 0) -> Failed:
    """Reads a call's end with a gRPC status other than OK."""
    if code == "DEADLINE_EXCEEDED":
        category = FailureCategory.TIMEOUT
    elif code in _VALIDATION_CODES:
        category = FailureCategory.VALIDATION
    elif code in _BUSINESS_CODES:
        category = FailureCategory.BUSINESS
    else:
        category = FailureCategory.INFRASTRUCTURE
    ambiguous = code not in DEFINITE_CODES
    return Failed(
        Failure(category, code, message),
        code=code,
        ambiguous=ambiguous,
        retryable=ambiguous and code not in FINAL_AMBIGUOUS_CODES,
        retry_after_ms=retry_after_ms,
    )


@dataclass(slots=True, frozen=True)
class Begin:
    """The first input: StartSaga."""

    queues: bool = False
    """Not all locks are free: the saga waits for the first. Else it takes all of them with its first transition."""


@dataclass(slots=True, frozen=True)
class LockGranted:
    """A lock that the saga waits for is its own."""

    name: str
    fencing_token: int


@dataclass(slots=True)  # as Success
class Answered:
    """A call has ended. Each call is answered exactly once."""

    step: int
    direction: Direction
    generation: int
    attempt: int
    outcome: Outcome
    elapsed_ms: int
    """Since the first attempt in this direction (`since_revision`)."""
    random: float
    """0 <= random < 1, for the jitter of a back-off."""


@dataclass(slots=True, frozen=True)
class WaitOver:
    """The back-off or the completion timeout that began at `changed_revision` is over."""

    step: int
    changed_revision: int
    elapsed_ms: int


@dataclass(slots=True, frozen=True)
class DeadlinePassed:
    """The saga's timeout is over."""


@dataclass(slots=True, frozen=True)
class Complete:
    """CompleteStep: the answer to a pending call."""

    step: int
    direction: Direction
    generation: int
    outcome: Success | Failed
    elapsed_ms: int
    random: float
    actor: str = ""


@dataclass(slots=True, frozen=True)
class Compensate:
    """CompensateSaga."""

    reason: str = ""
    actor: str = ""


@dataclass(slots=True, frozen=True)
class Retry:
    """RetrySaga. `step` None: all that is parked."""

    revision: int
    step: int | None = None
    input: Payload | None = None
    reason: str = ""
    actor: str = ""


@dataclass(slots=True, frozen=True)
class Skip:
    """SkipStep. `executed` None: the caller did not say."""

    revision: int
    step: int
    executed: bool | None = None
    output: Payload | None = None
    reason: str = ""
    actor: str = ""


@dataclass(slots=True, frozen=True)
class Abandon:
    """AbandonSaga."""

    revision: int
    reason: str = ""
    actor: str = ""


@dataclass(slots=True, frozen=True)
class Recover:
    """A node took the saga over: what was in flight may have happened, and is called again."""


Input = (
    Begin
    | LockGranted
    | Answered
    | WaitOver
    | DeadlinePassed
    | Complete
    | Compensate
    | Retry
    | Skip
    | Abandon
    | Recover
)
