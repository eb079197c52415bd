"""A saga that is played by the engine's own `decide` on a clock of its own, with participants that answer as told.

Nobody is called. Participants answer at once; what times out takes the step's timeout, back-offs take their bound, and
where `retry_for` is the bound, the second failure is the last: it comes when that time is over.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from uuid import UUID

from sagad_server.domain.decide import begin, decide
from sagad_server.domain.definition import Definition
from sagad_server.domain.draft import Decision
from sagad_server.domain.faults import FaultKind, outcome
from sagad_server.domain.inputs import Answered, DeadlinePassed, Input, Success, WaitOver
from sagad_server.domain.saga import Saga, Step
from sagad_server.domain.states import Direction, StepKind, StepState

_UID = UUID(int=0)
_LONGEST = 1 - 2**-53
"""The chance by which a back-off takes its bound."""

_FORWARD_WAITS = frozenset({StepState.BACKING_OFF, StepState.AWAITING_COMPLETION})
_COMPLETION_WAITS = frozenset({StepState.AWAITING_COMPLETION, StepState.COMPENSATION_AWAITING_COMPLETION})

Call = tuple[int, Direction]
"""The action or the compensation of a step."""


Due = tuple[int, int, Input]
"""What is going to happen, behind the time (ms) and a number: of two things due at once the older one comes first."""


@dataclass(frozen=True, slots=True)
class Log:
    """The attempts that were made, the last one first; walks that begin alike share it."""

    call: Call
    unknown: bool
    """Of a compensation: it is not known whether the action has happened."""
    before: "Log | None"


@dataclass(slots=True)
class Work:
    """What walks have cost so far. It is counted in transitions, since time does not exist here."""

    transitions: int = 0


@dataclass(slots=True)
class Walk:
    """One saga on its way. What is behind it is never changed, so that a fork costs little."""

    saga: Saga
    work: Work
    faults: dict[Call, FaultKind] = field(default_factory=dict)
    now_ms: int = 0
    log: Log | None = None
    _dues: list[Due] = field(default_factory=list)
    _since_ms: dict[Call, int] = field(default_factory=dict)
    _number: int = 0

    @classmethod
    def begin(cls, definition: Definition, work: Work) -> "Walk":
        """A saga that has just been started. No step has an expression that reads anything."""
        steps = [Step() for _ in definition.steps]
        saga = Saga(definition, "default", "example", _UID, None, timeout_ms=definition.timeout_ms, steps=steps)
        walk = cls(saga, work)
        walk._plan_deadline()
        walk._apply(begin(saga))
        return walk

    def fork(self) -> "Walk":
        """Another walk that goes on from here."""
        return replace(self, faults=self.faults.copy(), _dues=self._dues.copy(), _since_ms=self._since_ms.copy())

    @property
    def next_call(self) -> Call | None:
        """The call that is answered next, if that is what happens next."""
        what = self._dues[0][2] if self._dues and not self.saga.at_rest else None
        return (what.step, what.direction) if isinstance(what, Answered) else None

    def turn(self) -> bool:
        """Lets the next thing happen. False: nothing does any more."""
        if self.saga.at_rest:
            return False
        at_ms, _, what = heappop(self._dues)
        self.now_ms = max(self.now_ms, at_ms)
        self.put(what)
        return True

    def run(self) -> None:
        """Goes on until the saga has ended or is parked."""
        while self.turn():
            pass

    def put(self, what: Input) -> bool:
        """Lets something happen now; False: it changes nothing. Raises errors.FailedPrecondition."""
        decision = decide(self.saga, what)
        if decision is not None:
            self._apply(decision)
        return decision is not None

    def fail_next_call(self, kind: FaultKind) -> None:
        """The call that is answered next, and each repetition of it, meets the fault instead."""
        call = self.next_call
        assert call is not None, "the next thing to happen is no answer"
        self.faults[call] = kind
        self._plan_answer(call, heappop(self._dues)[1])

    def under_way(self) -> tuple[int, ...]:
        """The steps with a call that is not answered yet."""
        return tuple(sorted(what.step for *_, what in self._dues if isinstance(what, Answered)))

    def situation(self) -> Hashable | None:
        """What decides how a saga that goes back goes on; None where more than that decides, such as the time."""
        if not self.saga.compensating:
            return None
        steps = self.saga.steps
        calls = []
        for *_, what in sorted(self._dues):
            if isinstance(what, Answered):
                if not isinstance(what.outcome, Success):
                    return None
                calls.append(2 * what.step + what.direction)
            elif isinstance(what, WaitOver) and what.changed_revision == steps[what.step].changed_revision:
                return None
        return bytes(step.state for step in steps), tuple(calls)

    def _apply(self, decision: Decision) -> None:
        self.work.transitions += 1
        self.saga = decision.saga
        for call in decision.calls:
            self._since_ms.setdefault(call, self.now_ms)
            unknown = call[1] is Direction.COMPENSATION and not self.saga.steps[call[0]].succeeded
            self.log = Log(call, unknown, self.log)
            self._plan_answer(call)
        for index in decision.waits:
            self._plan_end_of_wait(index)
        if decision.rearm_deadline:
            self._plan_deadline()

    def _plan_answer(self, call: Call, number: int | None = None) -> None:
        index, direction = call
        definition, step = self.saga.definition.steps[index], self.saga.steps[index]
        fault = self.faults.get(call)
        result = Success(None) if fault is None else outcome(fault)
        delay_ms = definition.timeout_ms or 0 if fault is FaultKind.TIMED_OUT else 0
        at_ms = self._last_failure_ms(call, self.now_ms + delay_ms)
        attempt = _attempt(step, direction)
        elapsed_ms = at_ms - self._since_ms[call]
        answered = Answered(index, direction, step.generation, attempt, result, elapsed_ms, _LONGEST)
        self._plan(at_ms, answered, number)

    def _plan_end_of_wait(self, index: int) -> None:
        step = self.saga.steps[index]
        call = index, Direction.ACTION if step.state in _FORWARD_WAITS else Direction.COMPENSATION
        at_ms = self.now_ms + step.delay_ms
        if step.state in _COMPLETION_WAITS:
            at_ms = self._last_failure_ms(call, at_ms)
        self._plan(at_ms, WaitOver(index, step.changed_revision, at_ms - self._since_ms[call]))

    def _plan_deadline(self) -> None:
        if self.saga.timeout_ms is not None:
            self._plan(max(self.now_ms, self.saga.timeout_ms), DeadlinePassed())

    def _plan(self, at_ms: int, what: Input, number: int | None = None) -> None:
        self._number += 1
        heappush(self._dues, (at_ms, self._number if number is None else number, what))

    def _last_failure_ms(self, call: Call, at_ms: int) -> int:
        """When the call fails: at that time, or once `retry_for` is over if that is the bound and it failed before."""
        index, direction = call
        definition = self.saga.definition.steps[index]
        bounded = direction is Direction.COMPENSATION or definition.kind is StepKind.RETRIABLE
        if call in self.faults and bounded and _attempt(self.saga.steps[index], direction) > 1:
            return max(at_ms, self._since_ms[call] + definition.retry_for_ms)
        return at_ms


def _attempt(step: Step, direction: Direction) -> int:
    return step.attempt if direction is Direction.ACTION else step.compensation_attempt
