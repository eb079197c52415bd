"""A saga played by hand: inputs go in, and what `decide` wants done is kept for the test to answer."""

from uuid import UUID

from google.protobuf import json_format

from sagad.v1.common_pb2 import Payload
from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.decide import begin, decide
from sagad_server.domain.definition import compile_definition
from sagad_server.domain.draft import Decision, Event
from sagad_server.domain.inputs import (
    Answered,
    Compensate,
    Complete,
    DeadlinePassed,
    Failed,
    Input,
    NotSent,
    Outcome,
    Pending,
    Recover,
    Success,
    WaitOver,
    failed_with_code,
)
from sagad_server.domain.saga import Failure, Saga, Step
from sagad_server.domain.states import Direction, FailureCategory, SagaState, StepState

UID = UUID(int=7)


def payload(value: object) -> Payload:
    return json_format.ParseDict({"json": value}, Payload())


def refused(
    reason: str = "NO", *, retryable: bool = False, never_executed: bool = False, retry_after_ms: int = 0
) -> Failed:
    """A participant's own `failure`."""
    failure = Failure(FailureCategory.BUSINESS, reason, "no")
    return Failed(failure, retryable=retryable, never_executed=never_executed, retry_after_ms=retry_after_ms)


def code(name: str) -> Failed:
    return failed_with_code(name, name.lower())


TIMED_OUT = code("DEADLINE_EXCEEDED")


class Play:
    """One saga, its calls under way and everything that happened to it."""

    def __init__(self, message: DefinitionMessage, input: object = None, timeout_ms: int | None = None) -> None:  # noqa: A002
        definition = compile_definition(message)
        self.saga = Saga(
            definition=definition,
            namespace="default",
            saga_id="s-1",
            uid=UID,
            input=None if input is None else payload(input),
            timeout_ms=timeout_ms,
            steps=[Step() for _ in definition.steps],
        )
        self.events: list[Event] = []
        self.calls: list[tuple[int, Direction]] = []
        self.called: list[str] = []
        """Every call ever made, as 'step' or '-step' for a compensation."""
        self._apply(begin(self.saga))

    def _apply(self, decision: Decision | None) -> Event | None:
        if decision is None:
            return None
        assert decision.saga.revision == self.saga.revision + 1
        self.saga = decision.saga
        self.events.append(decision.event)
        self.calls += decision.calls
        for index, direction in decision.calls:
            sign = "" if direction is Direction.ACTION else "-"
            self.called.append(sign + self.saga.definition.steps[index].step_id)
        return decision.event

    def put(self, what: Input) -> Event | None:
        """Any input."""
        return self._apply(decide(self.saga, what))

    def index(self, step_id: str) -> int:
        return self.saga.definition.index[step_id]

    def step(self, step_id: str) -> Step:
        return self.saga.steps[self.index(step_id)]

    def answer(
        self, step_id: str, outcome: Outcome, *, elapsed_ms: int = 0, random: float = 0.5, attempt: int | None = None
    ) -> Event | None:
        """Answers the call of the step that is under way, whichever it is."""
        index = self.index(step_id)
        direction = Direction.COMPENSATION if (index, Direction.COMPENSATION) in self.calls else Direction.ACTION
        if attempt is None:
            self.calls.remove((index, direction))
        step = self.saga.steps[index]
        current = step.attempt if direction is Direction.ACTION else step.compensation_attempt
        return self.put(Answered(index, direction, step.generation, attempt or current, outcome, elapsed_ms, random))

    def succeed(self, *step_ids: str, output: object = None) -> None:
        for step_id in step_ids:
            self.answer(step_id, Success(None if output is None else payload(output)))

    def pend(self, step_id: str) -> None:
        self.answer(step_id, Pending())

    def not_sent(self, step_id: str) -> None:
        self.answer(step_id, NotSent("full"))

    def wait_over(self, step_id: str, *, elapsed_ms: int = 0) -> Event | None:
        index = self.index(step_id)
        return self.put(WaitOver(index, self.saga.steps[index].changed_revision, elapsed_ms))

    def complete(
        self, step_id: str, outcome: Success | Failed, direction: Direction = Direction.ACTION, generation: int = 0
    ) -> Event | None:
        index = self.index(step_id)
        generation = generation or self.saga.steps[index].generation
        return self.put(Complete(index, direction, generation, outcome, 0, 0.5))

    def crash(self) -> Event | None:
        """A node took the saga over: the calls under way are lost."""
        self.calls.clear()
        return self.put(Recover())

    def compensate(self) -> Event | None:
        return self.put(Compensate("changed my mind"))

    def deadline(self) -> Event | None:
        return self.put(DeadlinePassed())

    @property
    def state(self) -> SagaState:
        return self.saga.state

    def states(self) -> dict[str, StepState]:
        return {d.step_id: s.state for d, s in zip(self.saga.definition.steps, self.saga.steps, strict=True)}
