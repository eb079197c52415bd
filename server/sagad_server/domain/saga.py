"""A saga and its steps: control state and the data it carries. Values are replaced, never shared between two
revisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from google.protobuf.struct_pb2 import Struct

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.definition import Definition
from sagad_server.domain.states import (
    ENDED,
    FailureCategory,
    ParkingReason,
    SagaState,
    StepKind,
    StepState,
)


@dataclass(slots=True, frozen=True)
class Failure:
    """What went wrong. `step_id` is empty where the saga as a whole failed."""

    category: FailureCategory
    reason: str
    message: str
    step_id: str = ""
    details: Struct | None = None


@dataclass(slots=True)
class Step:
    """One step of a saga."""

    state: StepState = StepState.NOT_STARTED
    attempt: int = 0
    """Calls of the action in this generation."""
    retries: int = 0
    """Those that count against max_retries."""
    generation: int = 1
    may_have_happened: bool = False
    succeeded: bool = False
    compensation_attempt: int = 0
    compensation_retries: int = 0
    changed_revision: int = 0
    """The last transition that changed this step: `delay_ms` counts from its time."""
    since_revision: int = 0
    """The first attempt in this direction: `retry_for` counts from its time."""
    delay_ms: int = 0
    parking_reason: ParkingReason | None = None
    failure: Failure | None = None
    input: Payload | None = None
    """Evaluated from the step's expression; None: the saga's input."""
    output: Payload | None = None

    def clone(self) -> "Step":
        new = Step.__new__(Step)
        new.state = self.state
        new.attempt = self.attempt
        new.retries = self.retries
        new.generation = self.generation
        new.may_have_happened = self.may_have_happened
        new.succeeded = self.succeeded
        new.compensation_attempt = self.compensation_attempt
        new.compensation_retries = self.compensation_retries
        new.changed_revision = self.changed_revision
        new.since_revision = self.since_revision
        new.delay_ms = self.delay_ms
        new.parking_reason = self.parking_reason
        new.failure = self.failure
        new.input = self.input
        new.output = self.output
        return new


@dataclass(slots=True)
class Saga:
    """One execution of a definition, as it is after `revision` transitions."""

    definition: Definition
    namespace: str
    saga_id: str
    uid: UUID
    input: Payload | None
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    timeout_ms: int | None = None
    """From its create_time; None: no deadline."""
    state: SagaState = SagaState.RUNNING
    revision: int = 0
    compensating: bool = False
    """The direction; it stays while the saga is parked."""
    steps: list[Step] = field(default_factory=list)
    failure: Failure | None = None
    """What made the saga turn round."""
    incident: ParkingReason | None = None
    """INTERNAL or NO_PROGRESS: parked as a whole."""
    incident_id: str = ""
    locks: tuple[str, ...] = ()
    """Names, in the order in which they are taken."""
    lock_tokens: Mapping[str, int] = field(default_factory=dict)
    """Fencing tokens of the locks that it holds, by name."""
    waits_for_lock: str = ""
    """Nothing starts until it holds this one, and those behind it."""

    def clone(self) -> "Saga":
        new = Saga.__new__(Saga)
        new.definition = self.definition
        new.namespace = self.namespace
        new.saga_id = self.saga_id
        new.uid = self.uid
        new.input = self.input
        new.labels = self.labels
        new.metadata = self.metadata
        new.timeout_ms = self.timeout_ms
        new.state = self.state
        new.revision = self.revision
        new.compensating = self.compensating
        new.steps = self.steps.copy()
        new.failure = self.failure
        new.incident = self.incident
        new.incident_id = self.incident_id
        new.locks = self.locks
        new.lock_tokens = self.lock_tokens
        new.waits_for_lock = self.waits_for_lock
        return new

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def at_rest(self) -> bool:
        """Nothing moves it but a call."""
        return self.ended or self.state is SagaState.PARKED

    def idempotency_key(self, index: int) -> str:
        """Same key, same effect: `<uid>/<step_id>/<generation>`."""
        return f"{self.uid}/{self.definition.steps[index].step_id}/{self.steps[index].generation}"

    def step_input(self, index: int) -> Payload | None:
        own = self.steps[index].input
        return self.input if own is None else own

    def pivot_in_flight(self) -> bool:
        """The pivot was dispatched and has not definitely been refused: nobody may turn the saga round."""
        if self.definition.pivot is None:
            return False
        step = self.steps[self.definition.pivot]
        if step.state in (StepState.RUNNING, StepState.AWAITING_COMPLETION):
            return True
        return step.state in (StepState.BACKING_OFF, StepState.PARKED) and step.may_have_happened

    def deadline_counts(self) -> bool:
        """Whether a deadline turns the saga round: from the dispatch of the pivot on it does not, until the pivot is
        definitely refused."""
        return self.state is SagaState.RUNNING and not (self.pivot_in_flight() or self.past_pivot())

    def past_pivot(self) -> bool:
        """The point of no return is the pivot's success, or skip."""
        if self.definition.pivot is None:
            return False
        return self.steps[self.definition.pivot].state in (StepState.SUCCEEDED, StepState.SKIPPED)


@dataclass(slots=True, frozen=True)
class Parking:
    """One thing that needs an operator. `step` is None for the saga as a whole."""

    reason: ParkingReason
    step: int | None
    since_revision: int
    resumes_as: SagaState
    allowed_calls: tuple[str, ...]


def parkings(saga: Saga) -> list[Parking]:
    """What of a saga needs an operator, and which calls can help."""
    if saga.ended:
        return []
    resumes_as = SagaState.COMPENSATING if saga.compensating else SagaState.RUNNING
    if saga.incident is not None:
        calls: tuple[str, ...] = ("RetrySaga", "AbandonSaga")
        if not (saga.compensating or saga.past_pivot() or saga.pivot_in_flight()):
            calls = ("RetrySaga", "CompensateSaga", "AbandonSaga")
        return [Parking(saga.incident, None, saga.revision, resumes_as, calls)]
    found = []
    for index, step in enumerate(saga.steps):
        if step.parking_reason is not None:
            calls = ("RetrySaga", "SkipStep")
            if step.parking_reason is not ParkingReason.EXPRESSION_FAILED:
                calls += ("CompleteStep",)
            if saga.state is SagaState.PARKED:
                calls += ("AbandonSaga",)
            found.append(Parking(step.parking_reason, index, step.changed_revision, resumes_as, calls))
    return found


def needs_undo(kind: StepKind, read_only: bool) -> bool:
    """Whether a step that succeeded or may have happened must be compensated."""
    return kind is StepKind.COMPENSATABLE and not read_only
