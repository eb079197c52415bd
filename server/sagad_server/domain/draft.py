"""The next revision of a saga while `decide` works it out, and what it hands back."""

from dataclasses import dataclass, field

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.saga import Failure, Saga, Step
from sagad_server.domain.states import Direction, EventCause, ParkingReason, SagaState, StepState
from sagad_server.domain.transitions import Trigger, next_step_state


@dataclass(slots=True)
class StepChange:
    """A step after a transition, and what the transition brought."""

    index: int
    step: Step
    failure: Failure | None = None
    input: Payload | None = None
    output: Payload | None = None


@dataclass(slots=True)
class Event:
    """The record of one transition."""

    revision: int
    state: SagaState
    cause: EventCause
    changes: list[StepChange]
    actor: str = ""
    reason: str = ""
    failure: Failure | None = None
    """What made the saga turn round, if this transition did."""
    granted_lock: str = ""
    waits_for_lock: str = ""


@dataclass(slots=True)
class Decision:
    """A transition to be made durable, and what may be done once it is."""

    saga: Saga
    event: Event
    calls: list[tuple[int, Direction]]
    """(step, direction) to be called."""
    waits: list[int]
    """Steps whose `delay_ms` begins."""
    rearm_deadline: bool
    """A passed deadline that was held off by the pivot counts again."""
    queue_for: str = ""
    """The lock that the saga takes a ticket for."""


@dataclass(slots=True)
class Draft:
    """A private copy of a saga. A step is copied when it is first touched."""

    saga: Saga
    changes: dict[int, StepChange] = field(default_factory=dict)
    calls: list[tuple[int, Direction]] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    failure: Failure | None = None
    rearm_deadline: bool = False
    granted_lock: str = ""
    queue_for: str = ""

    @classmethod
    def of(cls, saga: Saga) -> "Draft":
        copy = saga.clone()
        copy.revision += 1
        return cls(copy)

    def change(self, index: int) -> StepChange:
        """The step's change in this transition, made on first use."""
        change = self.changes.get(index)
        if change is None:
            step = self.saga.steps[index].clone()
            step.changed_revision = self.saga.revision
            self.saga.steps[index] = step
            change = self.changes[index] = StepChange(index, step)
        return change

    def wait_for_lock(self, name: str) -> None:
        self.saga.waits_for_lock = self.queue_for = name

    def move(self, index: int, trigger: Trigger) -> Step:
        """Moves a step as the table says and returns it. A wait or a parking ends with it."""
        step = self.change(index).step
        step.state = next_step_state(step.state, trigger)
        step.delay_ms = 0
        step.parking_reason = None
        return step

    def wait(self, index: int, trigger: Trigger, delay_ms: int) -> None:
        step = self.move(index, trigger)
        step.delay_ms = delay_ms
        self.waits.append(index)

    def park(self, index: int, reason: ParkingReason) -> None:
        self.move(index, Trigger.PARK).parking_reason = reason

    def call_action(self, index: int) -> None:
        step = self.move(index, Trigger.DISPATCH)
        step.attempt += 1
        if not step.since_revision:
            step.since_revision = self.saga.revision
        self.calls.append((index, Direction.ACTION))

    def call_compensation(self, index: int) -> None:
        first = self.saga.steps[index].state in (StepState.SUCCEEDED, StepState.UNCERTAIN)
        step = self.move(index, Trigger.UNDO)
        step.compensation_attempt += 1
        if first:
            step.since_revision = self.saga.revision
        self.calls.append((index, Direction.COMPENSATION))

    def succeed(self, index: int, output: Payload | None) -> None:
        step = self.move(index, Trigger.SUCCEED)
        step.succeeded = True
        step.failure = None
        self.give_output(index, output)

    def give_output(self, index: int, output: Payload | None) -> None:
        change = self.change(index)
        change.step.output = change.output = output

    def give_input(self, index: int, value: Payload) -> None:
        change = self.change(index)
        change.step.input = change.input = value

    def fail(self, index: int, failure: Failure) -> None:
        """Records a failure of the step; where the step goes is another matter."""
        change = self.change(index)
        change.step.failure = change.failure = failure
