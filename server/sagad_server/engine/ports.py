"""What the engine is given: time, chance, a way to call participants, and an ear for what happens. One set for each
node."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from sagad.v1.participant_service_pb2 import CompensateRequest, StepRequest
from sagad_server.domain.draft import Event
from sagad_server.domain.inputs import Outcome
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import Direction, SagaState
from sagad_server.storage.rows import Key


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Does nothing if it has been made."""


class Clock(Protocol):
    """A monotonic clock that counts while the machine sleeps."""

    def monotonic(self) -> float:
        """Seconds since some moment."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Calls back at `when` of `monotonic`, or soon if that is past."""

    async def sleep(self, seconds: float) -> None:
        """0 lets everything else that is ready run first."""


class Random(Protocol):
    """A source of chance."""

    def random(self) -> float:
        """0 <= x < 1."""

    def uid(self) -> UUID:
        """A fresh UUIDv7."""


@dataclass(slots=True)
class Call:
    """One attempt. It is answered exactly once."""

    key: Key
    participant: str
    step: int
    direction: Direction
    generation: int
    attempt: int
    request: StepRequest | CompensateRequest
    timeout_ms: int | None
    """From the hand-over; None: the participant's default."""
    metadata: tuple[tuple[str, str], ...]
    may_start: Callable[["Call"], bool]
    """Asked at the hand-over, which may be long after `send`: false once another node may drive the saga."""
    on_outcome: Callable[["Call", Outcome], None]


class Transport(Protocol):
    """Calls participants."""

    def send(self, call: Call) -> None:
        """Hands the call over, or queues it; one that may not start then is not sent. `call.on_outcome` is called once,
        later."""

    async def drain(self) -> None:
        """Sends nothing more (answers NotSent instead), and returns when every call under way has ended."""


class Observer(Protocol):
    """Hears what the engine does, for metrics and logs."""

    def transition(self, saga: Saga, event: Event, age_s: float) -> None:
        """A transition is durable. `age_s` since the saga's create_time."""

    def attempt_ended(self, call: Call, outcome: Outcome, seconds: float) -> None:
        """A call has been answered."""

    def committed(self, writes: int, seconds: float) -> None:
        """The writer has committed a batch."""

    def commit_failed(self, reason: str) -> None:
        """A commit did not succeed; it is looked after."""

    def incident(self, key: Key, incident_id: str, error: BaseException) -> None:
        """A saga's data made the engine raise; it will be parked."""

    def start_refused(self, reason: str) -> None:
        """A new saga was not taken on."""


@dataclass(slots=True)  # made for every answer, and freezing makes that three times as slow
class Snapshot:
    """A saga as it durably is, with its instants by the database's clock."""

    saga: Saga
    epoch: int
    create_time: datetime
    update_time: datetime
    end_time: datetime | None
    times: dict[int, datetime]
    """Of the transitions, by revision."""


@dataclass(slots=True, frozen=True)
class Tombstone:
    """All that is left of a purged saga."""

    key: Key
    uid: UUID
    state: SagaState
    revision: int
    epoch: int
    create_time: datetime
    update_time: datetime
    end_time: datetime | None
