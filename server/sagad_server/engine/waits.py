"""What a saga that does not rest waits for."""

from sagad_server.domain.saga import Saga
from sagad_server.domain.states import StepState
from sagad_server.engine.active import ActiveSaga

WAITING = frozenset(
    {
        StepState.BACKING_OFF,
        StepState.AWAITING_COMPLETION,
        StepState.COMPENSATION_BACKING_OFF,
        StepState.COMPENSATION_AWAITING_COMPLETION,
    }
)
_IN_FLIGHT = frozenset({StepState.RUNNING, StepState.COMPENSATING})


def calls_nobody(saga: Saga) -> bool:
    """No call of it is under way."""
    for step in saga.steps:  # noqa: SIM110 - asked at every transition: twice as fast as `any`
        if step.state in _IN_FLIGHT:
            return False
    return True


def only_waits(active: ActiveSaga) -> bool:
    """Nothing is under way: no transition, no call."""
    if active.write is not None or active.waiting or not active.owned or active.saga.revision == 0:
        return False
    return not active.saga.at_rest and calls_nobody(active.saga)


def next_move_ms(active: ActiveSaga, saga: Saga, now_s: float) -> int:
    """How long `saga`, which `active` is about to be, has nothing to do but wait; 0 if it does not wait, or rests."""
    if saga.at_rest or saga.waits_for_lock or not calls_nobody(saga):
        return 0
    waits = [step for step in saga.steps if step.state in WAITING]
    left_ms = [step.delay_ms - active.elapsed_ms(step.changed_revision, now_s) for step in waits]
    if saga.timeout_ms is not None and saga.deadline_counts():
        left_ms.append(saga.timeout_ms - active.elapsed_ms(1, now_s))
    return max(0, min(left_ms))
