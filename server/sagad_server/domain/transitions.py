"""The table of all legal moves of steps and sagas. The rest of the domain asks it; the diagrams in the docs are made
from it."""

from enum import Enum

from sagad_server.domain.states import SagaState, StepState


class Trigger(Enum):
    """What moves a step."""

    DISPATCH = "dispatched"
    SUCCEED = "succeeded"
    BACK_OFF = "failed, to be retried"
    PEND = "answered pending"
    REFUSE = "definitely refused"
    GIVE_UP = "given up, may have happened"
    PARK = "needs an operator"
    SKIP = "skipped"
    UNDO = "compensation dispatched"
    UNDONE = "compensated"


class IllegalMove(Exception):  # noqa: N818 - a broken invariant of this program, never an answer to a user
    """The table has no such move."""


_S, _T = StepState, Trigger

STEP_MOVES: dict[tuple[StepState, Trigger], StepState] = {
    # before the first attempt
    (_S.NOT_STARTED, _T.DISPATCH): _S.RUNNING,
    (_S.NOT_STARTED, _T.SKIP): _S.SKIPPED,
    (_S.NOT_STARTED, _T.REFUSE): _S.REFUSED,  # an expression failed before the pivot
    (_S.NOT_STARTED, _T.PARK): _S.PARKED,  # an expression failed after it
    # the action under way
    (_S.RUNNING, _T.SUCCEED): _S.SUCCEEDED,
    (_S.RUNNING, _T.BACK_OFF): _S.BACKING_OFF,
    (_S.RUNNING, _T.PEND): _S.AWAITING_COMPLETION,
    (_S.RUNNING, _T.REFUSE): _S.REFUSED,
    (_S.RUNNING, _T.GIVE_UP): _S.UNCERTAIN,
    (_S.RUNNING, _T.PARK): _S.PARKED,
    (_S.RUNNING, _T.DISPATCH): _S.RUNNING,  # called again after a take-over
    (_S.BACKING_OFF, _T.DISPATCH): _S.RUNNING,
    (_S.BACKING_OFF, _T.SUCCEED): _S.SUCCEEDED,  # CompleteStep overtook
    (_S.BACKING_OFF, _T.BACK_OFF): _S.BACKING_OFF,
    (_S.BACKING_OFF, _T.REFUSE): _S.REFUSED,
    (_S.BACKING_OFF, _T.GIVE_UP): _S.UNCERTAIN,
    (_S.BACKING_OFF, _T.PARK): _S.PARKED,
    (_S.AWAITING_COMPLETION, _T.DISPATCH): _S.RUNNING,  # a poll
    (_S.AWAITING_COMPLETION, _T.SUCCEED): _S.SUCCEEDED,
    (_S.AWAITING_COMPLETION, _T.BACK_OFF): _S.BACKING_OFF,
    (_S.AWAITING_COMPLETION, _T.REFUSE): _S.REFUSED,
    (_S.AWAITING_COMPLETION, _T.GIVE_UP): _S.UNCERTAIN,
    (_S.AWAITING_COMPLETION, _T.PARK): _S.PARKED,
    # the operator
    (_S.PARKED, _T.DISPATCH): _S.RUNNING,
    (_S.PARKED, _T.SUCCEED): _S.SUCCEEDED,
    (_S.PARKED, _T.REFUSE): _S.REFUSED,
    (_S.PARKED, _T.SKIP): _S.SKIPPED,
    (_S.PARKED, _T.PARK): _S.PARKED,
    # the way back
    (_S.SUCCEEDED, _T.UNDO): _S.COMPENSATING,
    (_S.UNCERTAIN, _T.UNDO): _S.COMPENSATING,
    (_S.COMPENSATING, _T.UNDONE): _S.COMPENSATED,
    (_S.COMPENSATING, _T.BACK_OFF): _S.COMPENSATION_BACKING_OFF,
    (_S.COMPENSATING, _T.PEND): _S.COMPENSATION_AWAITING_COMPLETION,
    (_S.COMPENSATING, _T.PARK): _S.COMPENSATION_PARKED,
    (_S.COMPENSATING, _T.UNDO): _S.COMPENSATING,  # called again after a take-over
    (_S.COMPENSATION_BACKING_OFF, _T.UNDO): _S.COMPENSATING,
    (_S.COMPENSATION_BACKING_OFF, _T.UNDONE): _S.COMPENSATED,
    (_S.COMPENSATION_BACKING_OFF, _T.BACK_OFF): _S.COMPENSATION_BACKING_OFF,
    (_S.COMPENSATION_BACKING_OFF, _T.PARK): _S.COMPENSATION_PARKED,
    (_S.COMPENSATION_AWAITING_COMPLETION, _T.UNDO): _S.COMPENSATING,
    (_S.COMPENSATION_AWAITING_COMPLETION, _T.UNDONE): _S.COMPENSATED,
    (_S.COMPENSATION_AWAITING_COMPLETION, _T.BACK_OFF): _S.COMPENSATION_BACKING_OFF,
    (_S.COMPENSATION_AWAITING_COMPLETION, _T.PARK): _S.COMPENSATION_PARKED,
    (_S.COMPENSATION_PARKED, _T.UNDO): _S.COMPENSATING,
    (_S.COMPENSATION_PARKED, _T.UNDONE): _S.COMPENSATED,
}

_G = SagaState

SAGA_MOVES: frozenset[tuple[SagaState, SagaState]] = frozenset(
    {
        (_G.RUNNING, _G.SUCCEEDED),
        (_G.RUNNING, _G.COMPENSATING),
        (_G.RUNNING, _G.COMPENSATED),
        (_G.RUNNING, _G.PARKED),
        (_G.COMPENSATING, _G.COMPENSATED),
        (_G.COMPENSATING, _G.PARKED),
        (_G.PARKED, _G.RUNNING),
        (_G.PARKED, _G.COMPENSATING),
        (_G.PARKED, _G.SUCCEEDED),
        (_G.PARKED, _G.COMPENSATED),
        (_G.PARKED, _G.ABANDONED),
        (_G.SUCCEEDED, _G.COMPENSATING),
        (_G.SUCCEEDED, _G.COMPENSATED),
    }
)


def next_step_state(state: StepState, trigger: Trigger) -> StepState:
    """Raises IllegalMove if the table has no such move."""
    to = STEP_MOVES.get((state, trigger))
    if to is None:
        raise IllegalMove(f"a step that is {state.name} cannot be {trigger.value}")
    return to


def check_saga_move(old: SagaState, new: SagaState) -> None:
    """Raises IllegalMove if the table has no such move. Staying is always legal."""
    if old is not new and (old, new) not in SAGA_MOVES:
        raise IllegalMove(f"a saga that is {old.name} cannot become {new.name}")
