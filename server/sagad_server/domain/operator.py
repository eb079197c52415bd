"""What people ask for: CompensateSaga, RetrySaga, SkipStep, AbandonSaga."""

from sagad_server.domain.draft import Draft
from sagad_server.domain.errors import Aborted, FailedPrecondition, InvalidArgument, Violation
from sagad_server.domain.inputs import Abandon, Compensate, Retry, Skip
from sagad_server.domain.progress import must_undo, start, turn_round
from sagad_server.domain.saga import Failure, Saga, Step
from sagad_server.domain.states import FailureCategory, ParkingReason, SagaState, StepKind, StepState
from sagad_server.domain.transitions import Trigger

_STEP_PARKED = frozenset({StepState.PARKED, StepState.COMPENSATION_PARKED})


def compensate(draft: Draft, what: Compensate) -> bool:
    """Turns the saga round. False: it compensates already, or has. Raises FailedPrecondition."""
    saga = draft.saga
    if saga.state is SagaState.ABANDONED:
        raise FailedPrecondition(
            f"saga {saga.saga_id!r} was abandoned: nothing is called for it any more", reason="ABANDONED"
        )
    if saga.compensating:
        return False
    if saga.pivot_in_flight():
        raise FailedPrecondition(
            f"the pivot of saga {saga.saga_id!r} may have happened; wait for its outcome, or settle it by SkipStep",
            reason="PIVOT_IN_FLIGHT",
        )
    if saga.past_pivot():
        raise FailedPrecondition(
            f"saga {saga.saga_id!r} is past its pivot and can only go forward", reason="PAST_PIVOT"
        )
    if saga.incident is not None:
        _clear_incident(saga)
        for index, step in enumerate(saga.steps):
            if step.state is StepState.RUNNING:  # nobody waits for it any more
                draft.move(index, Trigger.GIVE_UP).may_have_happened = True
    turn_round(
        draft, Failure(FailureCategory.BUSINESS, "COMPENSATE_CALLED", what.reason or "CompensateSaga was called")
    )
    if saga.ended and saga.locks and any(must_undo(saga, index) for index in range(len(saga.steps))):
        draft.wait_for_lock(saga.locks[0])  # its end has given them back
    return True


def retry(draft: Draft, what: Retry) -> None:
    """New attempts for what is parked. The key stays unless the step cannot have happened."""
    saga = draft.saga
    _check_revision(saga, what.revision)
    if saga.incident is not None:
        if what.step is not None or what.input is not None:
            raise _invalid("step_id", "the saga is parked as a whole; leave step_id and input out")
        _clear_incident(saga)
        return
    parked = [] if saga.ended else [i for i, step in enumerate(saga.steps) if step.state in _STEP_PARKED]
    if what.step is not None:
        if what.step not in parked:
            raise _not_parked(saga, what.step)
        parked = [what.step]
    if not parked:
        raise FailedPrecondition(
            f"nothing of saga {saga.saga_id!r} is parked: it is {saga.state.name}", reason="NOT_PARKED"
        )
    if what.input is not None:
        _check_new_input(saga, what)
    for index in parked:
        _retry_step(draft, index, what)


def _check_new_input(saga: Saga, what: Retry) -> None:
    if what.step is None:
        raise _invalid("input", "give the step_id that it is for")
    step = saga.steps[what.step]
    if step.state is StepState.COMPENSATION_PARKED or step.may_have_happened:
        step_id = saga.definition.steps[what.step].step_id
        raise FailedPrecondition(
            f"step {step_id!r} may have happened with its input, which therefore stays", reason="INPUT_FIXED"
        )


def _retry_step(draft: Draft, index: int, what: Retry) -> None:
    step = draft.change(index).step
    if step.state is StepState.COMPENSATION_PARKED:
        step.compensation_retries = 0
        draft.call_compensation(index)
        step.since_revision = draft.saga.revision
        return
    if not step.may_have_happened and step.attempt:
        step.generation += 1
        step.attempt = 0
    step.retries = 0
    step.since_revision = 0
    if what.input is not None:
        draft.give_input(index, what.input)
    if step.parking_reason is ParkingReason.EXPRESSION_FAILED:
        start(draft, index)
    else:
        draft.call_action(index)


def skip(draft: Draft, what: Skip) -> None:
    """Settles a parked step by hand."""
    saga = draft.saga
    _check_revision(saga, what.revision)
    step = saga.steps[what.step]
    if saga.ended or saga.incident is not None or step.state not in _STEP_PARKED:
        raise _not_parked(saga, what.step)
    if step.state is StepState.COMPENSATION_PARKED:
        if what.executed is False:
            raise _invalid("outcome", "a compensation is skipped because it was done by hand: SUCCEEDED or unset")
        if what.output is not None:
            raise _invalid("output", "a compensation has no output")
        draft.move(what.step, Trigger.UNDONE)
    elif saga.definition.steps[what.step].kind is StepKind.PIVOT:
        _skip_pivot(draft, what)
    else:
        if what.executed is False:
            raise _invalid("outcome", "a step after the pivot must succeed in the end: SUCCEEDED or unset")
        draft.move(what.step, Trigger.SKIP)
        draft.give_output(what.step, what.output)


def _skip_pivot(draft: Draft, what: Skip) -> None:
    if what.executed is None:
        raise _invalid("outcome", "the pivot's outcome is unknown: say SUCCEEDED or NOT_EXECUTED")
    if what.executed:
        draft.succeed(what.step, what.output)
        return
    if what.output is not None:
        raise _invalid("output", "a pivot that was not executed has no output")
    step = draft.move(what.step, Trigger.REFUSE)
    step.may_have_happened = False
    step_id = draft.saga.definition.steps[what.step].step_id
    turn_round(draft, Failure(FailureCategory.BUSINESS, "SKIPPED_NOT_EXECUTED", what.reason, step_id))


def abandon(draft: Draft, what: Abandon) -> None:
    """Ends a parked saga and calls nobody."""
    saga = draft.saga
    _check_revision(saga, what.revision)
    if saga.state is not SagaState.PARKED:
        raise FailedPrecondition(
            f"saga {saga.saga_id!r} is {saga.state.name}; only a PARKED one can be abandoned", reason="NOT_PARKED"
        )
    _clear_incident(saga)
    saga.state = SagaState.ABANDONED


def _clear_incident(saga: Saga) -> None:
    saga.incident, saga.incident_id = None, ""


def _check_revision(saga: Saga, seen: int) -> None:
    """The draft is one revision ahead of what callers can have seen."""
    current = saga.revision - 1
    if seen != current:
        raise Aborted(
            f"saga {saga.saga_id!r} is at revision {current}, not at {seen}: read it again, then decide",
            metadata={"revision": str(current)},
        )


def _not_parked(saga: Saga, index: int) -> FailedPrecondition:
    step: Step = saga.steps[index]
    step_id = saga.definition.steps[index].step_id
    return FailedPrecondition(f"step {step_id!r} is not parked: it is {step.state.name}", reason="NOT_PARKED")


def _invalid(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.of([Violation(field, description)])
