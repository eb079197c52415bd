"""CompleteStep: an answer that comes by another way, maybe early, twice, late or contradicting."""

from sagad_server.domain.errors import FailedPrecondition, Unavailable
from sagad_server.domain.inputs import Complete, Failed, Success
from sagad_server.domain.saga import Saga, Step
from sagad_server.domain.states import Direction, StepState

_RETRY_AFTER_MS = 10_000
_OPEN = {
    Direction.ACTION: frozenset({StepState.RUNNING, StepState.BACKING_OFF, StepState.AWAITING_COMPLETION}),
    Direction.COMPENSATION: frozenset(
        {
            StepState.COMPENSATING,
            StepState.COMPENSATION_BACKING_OFF,
            StepState.COMPENSATION_AWAITING_COMPLETION,
        }
    ),
}
_PARKED = {
    Direction.ACTION: StepState.PARKED,
    Direction.COMPENSATION: StepState.COMPENSATION_PARKED,
}


def decide_completion(saga: Saga, what: Complete) -> bool:
    """Whether the answer is to be applied; False: it is already known.

    Raises FailedPrecondition: OUTCOME_CONFLICT if another answer stands, STEP_CLOSED if the step was given up; and
    Unavailable: SAGA_PARKED while the saga is parked as a whole.
    """
    step = saga.steps[what.step]
    step_id = saga.definition.steps[what.step].step_id
    if what.generation != step.generation:
        raise _closed(
            step_id, f"its idempotency key is of generation {what.generation}, the step is at {step.generation}"
        )
    if saga.incident is None and not saga.ended:
        if step.state in _OPEN[what.direction]:
            return True
        if step.state is _PARKED[what.direction] and _settles_parked(step, what):
            return True
    elif not saga.ended and step.state in _OPEN[what.direction]:
        raise Unavailable(
            f"saga {saga.saga_id!r} is parked as a whole, and its step {step_id!r} is still open: answer again once the"
            " saga was retried",
            reason="SAGA_PARKED",
            retry_after_ms=_RETRY_AFTER_MS,
        )
    known = _known_action(step, what) if what.direction is Direction.ACTION else _known_compensation(step, what)
    if known is None:
        raise _closed(step_id, f"it is {step.state.name} in a saga that is {saga.state.name}")
    if not known:
        raise FailedPrecondition(
            f"step {step_id!r} already has another outcome: it is {step.state.name}",
            reason="OUTCOME_CONFLICT",
            metadata={"step_id": step_id},
        )
    return False


def _settles_parked(step: Step, what: Complete) -> bool:
    """What is parked for want of an answer takes one that leaves no doubt."""
    if isinstance(what.outcome, Success):
        return step.attempt > 0
    return what.direction is Direction.ACTION and what.outcome.never_executed


def _known_action(step: Step, what: Complete) -> bool | None:
    if step.succeeded:
        return isinstance(what.outcome, Success) and (what.outcome.output or None) == (step.output or None)
    if step.state is StepState.REFUSED:
        return isinstance(what.outcome, Failed) and _same_reason(step, what.outcome)
    return None


def _known_compensation(step: Step, what: Complete) -> bool | None:
    if step.state is StepState.COMPENSATED:
        return isinstance(what.outcome, Success)
    return None


def _same_reason(step: Step, outcome: Failed) -> bool:
    return step.failure is not None and step.failure.reason == outcome.failure.reason


def _closed(step_id: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"step {step_id!r} takes no answer any more: {why}", reason="STEP_CLOSED", metadata={"step_id": step_id}
    )
