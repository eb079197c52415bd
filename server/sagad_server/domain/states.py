"""The words for where things stand. The numbers are those of the contract (`sagad.v1`), so that no conversion is
needed."""

from enum import IntEnum


class SagaState(IntEnum):
    RUNNING = 1
    COMPENSATING = 2
    PARKED = 3
    SUCCEEDED = 4
    COMPENSATED = 5
    ABANDONED = 6


class StepState(IntEnum):
    NOT_STARTED = 1
    RUNNING = 2
    BACKING_OFF = 3
    AWAITING_COMPLETION = 4
    SUCCEEDED = 5
    REFUSED = 6
    UNCERTAIN = 7
    SKIPPED = 8
    PARKED = 9
    COMPENSATING = 10
    COMPENSATION_BACKING_OFF = 11
    COMPENSATION_AWAITING_COMPLETION = 12
    COMPENSATION_PARKED = 13
    COMPENSATED = 14


class StepKind(IntEnum):
    COMPENSATABLE = 1
    PIVOT = 2
    RETRIABLE = 3


class ParkingReason(IntEnum):
    PIVOT_OUTCOME_UNKNOWN = 1
    STEP_REFUSED = 2
    STEP_EXHAUSTED = 3
    COMPENSATION_REFUSED = 4
    COMPENSATION_EXHAUSTED = 5
    EXPRESSION_FAILED = 6
    INTERNAL = 7
    NO_PROGRESS = 8


class FailureCategory(IntEnum):
    VALIDATION = 1
    BUSINESS = 2
    INFRASTRUCTURE = 3
    TIMEOUT = 4
    RETRIES_EXHAUSTED = 5
    COMPENSATION = 6


class EventCause(IntEnum):
    STARTED = 1
    ANSWERED = 2
    TIMER = 3
    DEADLINE = 4
    COMPLETED = 5
    COMPENSATE_CALLED = 6
    RETRY_CALLED = 7
    SKIP_CALLED = 8
    ABANDON_CALLED = 9
    RECOVERED = 10
    LATE_ANSWER = 11
    INCIDENT = 12
    LOCK_GRANTED = 13


class Direction(IntEnum):
    """Which of a step's two calls is meant."""

    ACTION = 1
    COMPENSATION = 2


ENDED = frozenset({SagaState.SUCCEEDED, SagaState.COMPENSATED, SagaState.ABANDONED})
"""The states in which a saga has ended."""
