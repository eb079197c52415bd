"""What an exploration lets go wrong: with one call of a definition, or with the saga as a whole."""

from dataclasses import dataclass
from enum import IntEnum

from sagad_server.domain.inputs import Failed, Outcome, Pending, failed_with_code
from sagad_server.domain.saga import Failure
from sagad_server.domain.states import Direction, FailureCategory


class FaultKind(IntEnum):
    """The numbers are those of the contract. What goes wrong with a call does so at each of its attempts."""

    REFUSED = 1
    TIMED_OUT = 2
    RETRIES_EXHAUSTED = 3
    PENDING_FOREVER = 4
    EXPRESSION_FAILED = 5
    DEADLINE_PASSED = 6
    COMPENSATE_CALLED = 7


ACTION_FAULTS = (
    FaultKind.REFUSED,
    FaultKind.TIMED_OUT,
    FaultKind.RETRIES_EXHAUSTED,
    FaultKind.PENDING_FOREVER,
)
COMPENSATION_FAULTS = (FaultKind.REFUSED, FaultKind.RETRIES_EXHAUSTED)
"""A compensation that times out, or is pending for ever, ends as one that fails until its time is over."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong on a path."""

    kind: FaultKind
    step: int | None = None
    """None: the saga as a whole."""
    direction: Direction = Direction.ACTION
    revision: int = 0
    """Of the saga as a whole: it happens after this transition of a saga in which nothing else goes wrong."""
    under_way: tuple[int, ...] = ()
    """Of the saga as a whole: the steps that are called just then; none after its end."""
    held_off_by: str = ""
    """PIVOT_IN_FLIGHT or PAST_PIVOT where the point of no return keeps it from having an effect."""


_OUTCOMES: dict[FaultKind, Outcome] = {
    FaultKind.REFUSED: Failed(Failure(FailureCategory.BUSINESS, "REFUSED", "the participant refuses")),
    FaultKind.TIMED_OUT: failed_with_code("DEADLINE_EXCEEDED", "the participant does not answer in time"),
    FaultKind.RETRIES_EXHAUSTED: Failed(
        Failure(FailureCategory.BUSINESS, "REFUSED", "the participant refuses for now"), retryable=True
    ),
    FaultKind.PENDING_FOREVER: Pending(),
}


def outcome(kind: FaultKind) -> Outcome:
    """How an attempt ends that meets the fault of a call."""
    return _OUTCOMES[kind]
