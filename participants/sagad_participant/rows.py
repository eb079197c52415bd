"""The rows of a barrier, and how they are read. What all barriers have in common."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

from sagad.v1 import common_pb2, saga_service_pb2
from sagad_participant.errors import AlreadyCompleted, Fenced, PendingClosed
from sagad_participant.outcomes import STEP_CLOSED


class Kind(IntEnum):
    """Which of a step's two calls is meant."""

    ACTION = 1
    COMPENSATION = 2


class Status(IntEnum):
    """Where a row stands."""

    RUNNING = 0
    """Only inside the transaction that claimed it: it is never committed. With RedisBarrier also: begun, without an
    answer so far."""
    SUCCEEDED = 1
    REFUSED = 2
    PENDING = 3
    CLOSED = 4
    """Was pending when its compensation came."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a call brings to the barrier."""

    idempotency_key: str
    kind: Kind
    fencing_token: int
    namespace: str
    saga_id: str
    step_id: str
    completion_token: str
    known_success: common_pb2.StepOutcome | None = None
    """Of a compensation: the action's success, where the coordinator has it. Used if the barrier has no row of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A claimed row, inside its transaction."""

    connection: Any
    """For the handler."""
    settle: Callable[[common_pb2.StepOutcome], Awaitable[None]]
    """Writes the handler's answer into the row."""
    replay: common_pb2.StepOutcome | None
    """The answer that the row has already: give it, and run nothing."""
    action_success: common_pb2.StepSuccess | None = None
    """Of a compensation: what the action had answered; None if it was pending."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Claimed rows, inside their one transaction: in the order of the claims."""

    connection: Any
    """For the handler."""
    settle: Callable[[Mapping[int, common_pb2.StepOutcome]], Awaitable[None]]
    """Writes answers into rows, by the places of their claims."""
    replays: Mapping[int, common_pb2.StepOutcome | Fenced]
    """By place: the answer that the row has already, or why the call is not served."""
    action_successes: Mapping[int, common_pb2.StepSuccess]
    """Of compensations, by place: what the action had answered; none if it was pending."""


@dataclass(frozen=True, slots=True)
class Work:
    """Work that was answered with pending, and is open (`outcome` is None) or completed."""

    idempotency_key: str
    kind: Kind
    namespace: str
    saga_id: str
    step_id: str
    completion_token: str
    since: datetime
    outcome: common_pb2.StepOutcome | None

    def request(self) -> saga_service_pb2.CompleteStepRequest:
        """What to tell SagaService.CompleteStep. Raises ValueError while the work is open."""
        if self.outcome is None:
            raise ValueError(f"the work for {self.idempotency_key!r} is not completed")
        return saga_service_pb2.CompleteStepRequest(
            namespace=self.namespace,
            saga_id=self.saga_id,
            step_id=self.step_id,
            completion_token=self.completion_token,
            outcome=self.outcome,
        )


def status_of(outcome: common_pb2.StepOutcome) -> Status:
    """The status of a row with this answer."""
    match outcome.WhichOneof("result"):
        case "success":
            return Status.SUCCEEDED
        case "failure":
            return Status.REFUSED
        case "pending":
            return Status.PENDING
    raise ValueError("the outcome has no result")


def replay_of(status: int, answer: bytes | None) -> common_pb2.StepOutcome | None:
    """The answer that a row gives again; None if this call has claimed it and must run."""
    if status == Status.RUNNING:
        return None
    if status == Status.CLOSED:
        return STEP_CLOSED
    return common_pb2.StepOutcome.FromString(answer or b"")


def success_in(status: int, answer: bytes | None) -> common_pb2.StepSuccess | None:
    """What the action answered, if it succeeded."""
    return common_pb2.StepOutcome.FromString(answer or b"").success if status == Status.SUCCEEDED else None


def check_fence(claim: Claim, seen: int) -> None:
    """Raises Fenced if a newer owner of the saga has called with this key."""
    if seen > claim.fencing_token:
        raise Fenced(
            f"fencing token {claim.fencing_token} is older than {seen}, which came before with the same key: "
            "another coordinator drives this saga now"
        )


def check_open(idempotency_key: str, status: int) -> None:
    """Raises PendingClosed or AlreadyCompleted if the row is not that of open work."""
    if status == Status.CLOSED:
        raise PendingClosed(idempotency_key)
    if status != Status.PENDING:
        raise AlreadyCompleted(idempotency_key)
