"""What follows by itself once something has changed: steps that are ready start, compensations that are ready start,
and the saga gets the state that its steps make."""

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.draft import Draft
from sagad_server.domain.expressions import ExpressionError, evaluate, evaluate_condition
from sagad_server.domain.saga import Failure, Saga, needs_undo
from sagad_server.domain.states import FailureCategory, ParkingReason, SagaState, StepState
from sagad_server.domain.transitions import IllegalMove, Trigger, check_saga_move

_DONE = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
_MOVING_FORWARD = frozenset({StepState.RUNNING, StepState.BACKING_OFF, StepState.AWAITING_COMPLETION})
_MOVING_BACK = frozenset(
    {
        StepState.RUNNING,
        StepState.COMPENSATING,
        StepState.COMPENSATION_BACKING_OFF,
        StepState.COMPENSATION_AWAITING_COMPLETION,
    }
)
_UNDOABLE = frozenset({StepState.SUCCEEDED, StepState.UNCERTAIN})


def advance(draft: Draft) -> None:
    """Starts what is ready, and settles the saga's state."""
    if not draft.saga.waits_for_lock:
        if not draft.saga.compensating:
            _start_ready_steps(draft)
        if draft.saga.compensating:  # a start may have turned the saga round
            _start_ready_compensations(draft)
    _settle(draft.saga)


def turn_round(draft: Draft, failure: Failure) -> None:
    """Begins compensation. Attempts under way are awaited; what only waits is given up."""
    saga = draft.saga
    assert not saga.compensating, "a saga turns round once"
    assert not saga.past_pivot(), "nothing turns round past the pivot"
    saga.compensating = True
    saga.waits_for_lock = ""
    saga.failure = draft.failure = failure
    for index, step in enumerate(saga.steps):
        if step.state is StepState.BACKING_OFF:
            draft.move(index, Trigger.GIVE_UP if step.may_have_happened else Trigger.REFUSE)
        elif step.state is StepState.AWAITING_COMPLETION:
            give_up(draft, index)


def give_up(draft: Draft, index: int) -> None:
    """From here on the action may have happened."""
    draft.move(index, Trigger.GIVE_UP).may_have_happened = True


def start(draft: Draft, index: int) -> None:
    """Starts a step whose dependencies are done: skips it, calls it, or fails on its expressions."""
    saga = draft.saga
    step = saga.definition.steps[index]
    if not step.active:
        draft.move(index, Trigger.SKIP)
        return
    try:
        if step.when is not None and not evaluate_condition(step.when, saga.input, _outputs(saga)):
            draft.move(index, Trigger.SKIP)
            return
        if step.input is not None and saga.steps[index].input is None:
            draft.give_input(index, evaluate(step.input, saga.input, _outputs(saga)))
    except ExpressionError as error:
        _fail_on_expression(draft, index, str(error))
        return
    draft.call_action(index)


def _fail_on_expression(draft: Draft, index: int, message: str) -> None:
    """A definite failure before the pivot; after it the step is parked."""
    step_id = draft.saga.definition.steps[index].step_id
    failure = Failure(FailureCategory.VALIDATION, "EXPRESSION_FAILED", message, step_id)
    draft.fail(index, failure)
    if draft.saga.past_pivot():
        draft.park(index, ParkingReason.EXPRESSION_FAILED)
    else:
        draft.move(index, Trigger.REFUSE)
        turn_round(draft, failure)


def _outputs(saga: Saga) -> dict[str, Payload]:
    return {
        definition.step_id: step.output
        for definition, step in zip(saga.definition.steps, saga.steps, strict=True)
        if step.output is not None and step.state in _DONE
    }


def _start_ready_steps(draft: Draft) -> None:
    saga = draft.saga
    done, waiting = 0, []
    for index, step in enumerate(saga.steps):
        if step.state in _DONE:
            done |= 1 << index
        elif step.state is StepState.NOT_STARTED:
            waiting.append(index)
    again = bool(waiting)
    while again and not saga.compensating:
        again = False
        for index in list(waiting):
            requires = saga.definition.steps[index].requires
            if saga.compensating or requires & done != requires:
                continue
            waiting.remove(index)
            start(draft, index)
            if saga.steps[index].state is StepState.SKIPPED:
                done |= 1 << index
                again = True  # its dependants may be ready now, even earlier ones of the list


def must_undo(saga: Saga, index: int) -> bool:
    """The step succeeded or may have happened, and is not compensated yet."""
    definition = saga.definition.steps[index]
    return saga.steps[index].state in _UNDOABLE and needs_undo(definition.kind, definition.read_only)


def _start_ready_compensations(draft: Draft) -> None:
    saga = draft.saga
    waiting = [i for i in range(len(saga.steps)) if must_undo(saga, i)]
    blocking = sum(1 << i for i in waiting)
    for i, step in enumerate(saga.steps):
        if step.state in _MOVING_BACK or step.state is StepState.COMPENSATION_PARKED:
            blocking |= 1 << i
    for index in reversed(waiting):
        if not saga.definition.steps[index].descendants & blocking:
            draft.call_compensation(index)


def _settle(saga: Saga) -> None:
    old = saga.state
    saga.state = _state_of(saga)
    check_saga_move(old, saga.state)


def _state_of(saga: Saga) -> SagaState:
    if saga.waits_for_lock:
        return SagaState.COMPENSATING if saga.compensating else SagaState.RUNNING
    states = {step.state for step in saga.steps}
    if saga.compensating:
        if states & _MOVING_BACK:
            return SagaState.COMPENSATING
        if StepState.COMPENSATION_PARKED in states:
            return SagaState.PARKED
        if any(must_undo(saga, i) for i in range(len(saga.steps))):
            raise IllegalMove("a compensation is neither done nor under way")
        return SagaState.COMPENSATED
    if states & _MOVING_FORWARD:
        return SagaState.RUNNING
    if StepState.PARKED in states:
        return SagaState.PARKED
    if states <= _DONE:
        return SagaState.SUCCEEDED
    raise IllegalMove(f"a saga cannot stand still with steps {sorted(s.name for s in states)}")
