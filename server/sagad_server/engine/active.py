"""A saga in memory: its committed state, the one transition that is on its way, and what waits behind it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sagad_server.domain.draft import Decision
from sagad_server.domain.errors import SagadError
from sagad_server.domain.inputs import Input
from sagad_server.domain.saga import Saga
from sagad_server.engine.ports import Snapshot, Timer, Tombstone
from sagad_server.storage.rows import Key
from sagad_server.storage.writes import Write

_MOST_TIMES_A_STEP = 8

Done = Callable[[Snapshot | Tombstone | SagadError], None]
"""Takes the saga as it durably is after a request, or why the request was refused."""


@dataclass(slots=True)
class ActiveSaga:
    """One saga that this node drives, or looks at for a caller."""

    key: Key
    saga: Saga
    """As committed; at revision 0 before the first commit."""
    epoch: int
    owned: bool
    """False: at rest or asleep, and read for a caller; the first write takes it over."""
    create_time: datetime | None = None
    update_time: datetime | None = None
    end_time: datetime | None = None
    times: dict[int, datetime] = field(default_factory=dict)
    """Instants of the transitions, by the database's clock: all, or those that matter yet."""
    anchor_s: float = 0.0
    """This node's clock when `update_time`, or the load, was the database's now."""
    anchor_time: datetime | None = None
    decision: Decision | None = None
    """Not committed yet."""
    write: Write | None = None
    """That of `decision`, whose verdict is awaited."""
    dones: list[Done] = field(default_factory=list)
    """Who waits for `decision` to be durable."""
    waiting: deque[tuple[Input, Done | None]] = field(default_factory=deque)
    """Inputs that came meanwhile."""
    timers: dict[int, Timer] = field(default_factory=dict)
    """The wait of each step that waits."""
    deadline: Timer | None = None
    at_rest: list[Done] = field(default_factory=list)
    """Callers that wait for the end, or for parking. A snapshot of a saga that is not at rest tells them that it leaves
    memory before."""
    request_hash: bytes = b""
    payload_bytes: int = 0

    @property
    def resting(self) -> bool:
        """It moves by itself no more, or not soon, and nothing is on its way: it need not be in memory."""
        return self.saga.revision > 0 and not self.owned and self.decision is None and not self.waiting

    def snapshot(self) -> Snapshot:
        assert self.create_time is not None, "a snapshot of what was never committed"
        assert self.update_time is not None
        return Snapshot(self.saga, self.epoch, self.create_time, self.update_time, self.end_time, self.times)

    def committed(self, decision: Decision, time: datetime, now_s: float) -> None:
        """The transition is durable since `time` of the database, which was about `now_s` here."""
        self.saga = decision.saga
        self.times[decision.saga.revision] = time
        if self.create_time is None:
            self.create_time = time
        self.update_time = self.anchor_time = time
        self.anchor_s = now_s
        self.end_time = time if decision.saga.ended else None
        if len(self.times) > _MOST_TIMES_A_STEP * (len(self.saga.steps) + 1):
            self._forget_times()

    def _forget_times(self) -> None:
        """Keeps the instants that something is still reckoned from: a step may be retried for a month."""
        kept = {1, self.saga.revision}
        for step in self.saga.steps:
            kept |= {step.changed_revision, step.since_revision}
        self.times = {revision: time for revision, time in self.times.items() if revision in kept}

    def elapsed_ms(self, revision: int, now_s: float) -> int:
        """Since the transition that made `revision`; 0 if there was none yet."""
        time = self.times.get(revision)
        if time is None or self.anchor_time is None:
            return 0
        return int((self.anchor_time - time).total_seconds() * 1000 + (now_s - self.anchor_s) * 1000)

    def cancel_timer(self, step: int) -> None:
        timer = self.timers.pop(step, None)
        if timer is not None:
            timer.cancel()

    def cancel_timers(self) -> None:
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
