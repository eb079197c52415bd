"""The moments of a saga in which nothing goes wrong, and what can go wrong at each."""

from collections import deque
from dataclasses import dataclass, replace

from sagad_server.domain.definition import Definition
from sagad_server.domain.errors import FailedPrecondition
from sagad_server.domain.example import with_failing_expression
from sagad_server.domain.faults import ACTION_FAULTS, Fault, FaultKind
from sagad_server.domain.inputs import Compensate, DeadlinePassed
from sagad_server.domain.states import Direction
from sagad_server.domain.walk import Walk, Work


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to go wrong, and at which moment; `step` None: with the saga as a whole."""

    kind: FaultKind
    moment: int
    step: int | None = None


class Moments:
    """A saga in which nothing goes wrong, after each of its transitions."""

    def __init__(self, definition: Definition, work: Work) -> None:
        self._work = work
        self._held_off: set[tuple[FaultKind, str]] = set()
        walk = Walk.begin(definition, work)
        self._moments = [walk.fork()]
        while walk.turn():
            self._moments.append(walk.fork())

    @property
    def first(self) -> Walk:
        """The saga that has just started."""
        return self._moments[0].fork()

    def plans(self, with_expressions: Definition) -> dict[FaultKind, deque[Plan]]:
        """All that can go wrong. The definition says which steps have expressions, also such as are not evaluated."""
        calls = [
            (moment, walk.next_call[0])
            for moment, walk in enumerate(self._moments)
            if walk.next_call is not None and walk.next_call[1] is Direction.ACTION
        ]
        plans = {kind: deque(Plan(kind, moment, step) for moment, step in calls) for kind in ACTION_FAULTS}
        plans[FaultKind.EXPRESSION_FAILED] = deque(
            Plan(FaultKind.EXPRESSION_FAILED, moment, step)
            for step, moment in self._starts().items()
            if with_expressions.steps[step].when is not None or with_expressions.steps[step].input is not None
        )
        for kind in (FaultKind.DEADLINE_PASSED, FaultKind.COMPENSATE_CALLED):
            plans[kind] = deque(Plan(kind, moment) for moment in range(len(self._moments)))
        return {kind: waiting for kind, waiting in plans.items() if waiting}

    def fork(self, plan: Plan) -> tuple[Walk, Fault] | None:
        """The saga in which the plan has come true; None where nothing can happen, or just what was said before."""
        if plan.kind is FaultKind.EXPRESSION_FAILED:
            return self._fail_expression(plan)
        walk = self._moments[plan.moment].fork()
        if plan.step is None:
            return self._meet(walk, plan.kind)
        walk.fail_next_call(plan.kind)
        return walk, Fault(plan.kind, plan.step)

    def _fail_expression(self, plan: Plan) -> tuple[Walk, Fault]:
        assert plan.step is not None
        if plan.moment == 0:
            definition = with_failing_expression(self.first.saga.definition, plan.step)
            return Walk.begin(definition, self._work), Fault(plan.kind, plan.step)
        walk = self._moments[plan.moment - 1].fork()
        walk.saga = walk.saga.clone()
        walk.saga.definition = with_failing_expression(walk.saga.definition, plan.step)
        walk.turn()
        return walk, Fault(plan.kind, plan.step)

    def _meet(self, walk: Walk, kind: FaultKind) -> tuple[Walk, Fault] | None:
        fault = Fault(kind, revision=walk.saga.revision, under_way=walk.under_way())
        held_off_by = _put(walk, kind)
        if held_off_by is None or (kind, held_off_by) in self._held_off:
            return None
        if held_off_by:
            self._held_off.add((kind, held_off_by))
        return walk, replace(fault, held_off_by=held_off_by)

    def _starts(self) -> dict[int, int]:
        """The moment of the first call of each step that is called."""
        starts: dict[int, int] = {}
        for moment, walk in enumerate(self._moments):
            for index, step in enumerate(walk.saga.steps):
                if step.attempt:
                    starts.setdefault(index, moment)
        return starts


def _put(walk: Walk, kind: FaultKind) -> str | None:
    """What keeps the fault from having an effect: nothing (""), or the point of no return. None: it cannot happen."""
    if kind is FaultKind.COMPENSATE_CALLED:
        try:
            return "" if walk.put(Compensate()) else None
        except FailedPrecondition as error:
            return error.reason
    if walk.put(DeadlinePassed()):
        return ""
    if walk.saga.at_rest or walk.saga.compensating:
        return None
    return "PIVOT_IN_FLIGHT" if walk.saga.pivot_in_flight() else "PAST_PIVOT"
