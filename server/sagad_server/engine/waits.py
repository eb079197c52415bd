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
_SLEEPER_MS = 60_000


def calls_nobody(saga: Saga) -> bool:
    """No call of it is under way."""
    return not any(step.state in _IN_FLIGHT for step in saga.steps)


def only_waits(active: ActiveSaga) -> bool:
    """Nothing is under way: no transition, no call."""
    if active.write is not None or active.waiting or not active.owned or active.saga.revision == 0:
        return False
    return not active.saga.at_rest and calls_nobody(active.saga)


def wake_after_ms(saga: Saga) -> int | None:
    """When a saga of which only waits are left moves next, if that is far off."""
    if not calls_nobody(saga):
        return None
    delays = [step.delay_ms for step in saga.steps if step.state in WAITING]
    shortest = min(delays, default=0)
    return shortest if shortest > _SLEEPER_MS else None
