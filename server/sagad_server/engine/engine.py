"""Drives the sagas of this node: decide, write, and only then act.

Everything here is a callback of one event loop: there is no task and no future for a saga or a call. A saga has at
most one transition on its way; inputs that come meanwhile wait behind it.
"""

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

from sagad_server.domain.draft import Decision
from sagad_server.domain.errors import FailedPrecondition, Internal, InvalidArgument, SagadError, Unavailable
from sagad_server.domain.inputs import Answered, Begin, Input, Outcome, Recover
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import ParkingReason
from sagad_server.engine.active import ActiveSaga, Done
from sagad_server.engine.admission import Admission
from sagad_server.engine.bounds import decide_bounded
from sagad_server.engine.calls import Calls
from sagad_server.engine.incidents import Incidents
from sagad_server.engine.journal import Journal
from sagad_server.engine.locks import Locks
from sagad_server.engine.ports import Call, Clock, Observer, Random, Transport
from sagad_server.engine.settings import Settings
from sagad_server.engine.timers import Timers
from sagad_server.engine.tokens import Tokens
from sagad_server.engine.waits import next_move_ms, only_waits
from sagad_server.engine.watch import Watches
from sagad_server.engine.writer import Writer
from sagad_server.engine.writes import write_of
from sagad_server.storage.locks import LockId
from sagad_server.storage.rows import EventRow, Key
from sagad_server.storage.store import DataRejected, Store
from sagad_server.storage.writes import Write

RETRY_AFTER_MS = 1000


class Engine:
    """The sagas in this node's memory, and what moves them."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        random: Random,
        transport: Transport,
        observer: Observer,
        tokens: Tokens,
        settings: Settings,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        holds_lease: Callable[[], bool],
    ) -> None:
        self.store = store
        self.clock = clock
        self.random = random
        self.observer = observer
        self.settings = settings
        self.tokens = tokens
        self.writer = Writer(store, clock, random, observer, self, settings.max_batch)
        self.sagas: dict[Key, ActiveSaga] = {}
        self.watches = Watches(store, clock, spawn, self.sagas, settings.max_watches, settings.watch_buffer)
        self.journal = Journal(store, clock, self.watches, spawn, settings.watch_buffer)
        self.draining = False
        self.admission = Admission(settings, clock, random, observer, lambda: len(self.sagas))
        self.on_conflict: Callable[[ActiveSaga], None] | None = None
        """Hears of a start whose id is taken: `Starts`, which answers its callers."""
        self.holds_lease = holds_lease
        """Whether this node may start calls: past its lease, another one may drive its sagas."""
        self.calls = Calls(transport, tokens, holds_lease, self._may_start, self._answered)
        self.incidents = Incidents(store, clock, random, self.watches, self.journal)
        self.locks = Locks(store, clock, random, spawn, self._over)
        self._timers = Timers(clock, self._over)
        self._spawn = spawn

    # -- inputs

    def admit(self, active: ActiveSaga) -> None:
        """Takes a saga into memory."""
        assert active.key not in self.sagas, active.key
        self.sagas[active.key] = active

    def resume(self, active: ActiveSaga) -> None:
        """Goes on with a saga that was just taken over: waits where it waited, calls again what was in flight."""
        self._timers.arm_all(active)
        if active.saga.locks:
            self.locks.follow(active)
        self.submit(active, Recover())

    def submit(self, active: ActiveSaga, what: Input, done: Done | None = None) -> None:
        """Lets something happen to a saga, after what is on its way. `done` hears of it once, when it is durable."""
        if active.decision is not None or active.waiting:
            active.waiting.append((what, done))
            return
        self._decide(active, what, done)
        self._forget_if_resting(active)

    def _decide(self, active: ActiveSaga, what: Input, done: Done | None) -> None:
        try:
            decision = decide_bounded(active.saga, what, active.payload_bytes, self.settings.max_saga_payload_bytes)
            write = None if decision is None else write_of(active, decision, self._sleep_ms(active, decision.saga))
        except SagadError as error:
            if done is None:  # nobody asked, so nobody may be refused: a rule is broken
                self._incident(active, error)
            else:
                done(error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not take other sagas down
            self._incident(active, error, done)
            return
        if decision is None or write is None:
            if done is not None:
                done(active.snapshot())
            return
        active.decision, active.write = decision, write
        if done is not None:
            active.dones.append(done)
        self.writer.submit(write)

    def _sleep_ms(self, active: ActiveSaga, saga: Saga) -> int | None:
        idle_ms = next_move_ms(active, saga, self.clock.monotonic())
        return idle_ms if idle_ms > self.settings.least_sleep_ms else None

    # -- the writer's verdicts

    def _writing(self, write: Write) -> ActiveSaga | None:
        """The saga that a verdict is about; None if this node has dropped it since, with all its others."""
        active = self.sagas.get(write.key)
        return active if active is not None and active.write is write else None

    def written(self, write: Write, time: datetime, lock_tokens: Mapping[str, int]) -> None:
        active = self._writing(write)
        if active is None:
            return
        decision, dones = active.decision, active.dones
        assert decision is not None, write.key
        active.decision, active.write, active.dones = None, None, []
        active.committed(decision, time, self.clock.monotonic())
        if active.saga.locks:
            if write.takes:
                assert lock_tokens.keys() >= set(write.takes), (write.key, write.takes, lock_tokens)
                active.saga.lock_tokens = lock_tokens
            self.locks.follow(active)
        active.payload_bytes += len(write.payload)
        active.epoch = write.epoch
        active.owned = not write.release
        self.journal.wake()
        if self.watches.watched(active.key):
            namespace, saga_id = active.key
            self.watches.publish(
                EventRow(namespace, saga_id, write.revision, write.cause, time, write.event, write.payload)
            )
        assert active.create_time is not None
        self.observer.transition(active.saga, decision.event, (time - active.create_time).total_seconds())
        for done in dones:
            done(active.snapshot())
        self._act(active, decision)
        if active.owned and write.epoch != write.guard_epoch:  # until now it was not, and no timer of it is armed
            self._timers.arm_all(active)
        self._go_on(active)

    def awaited(self, locks: Set[LockId]) -> None:
        self.locks.ask(locks)

    def held_up(self, write: Write) -> None:
        active = self._writing(write)
        if active is None:
            return
        self.locks.forget(active)
        active.decision, active.write = None, None
        self._decide(active, Begin(queues=True), None)

    def taken_over(self, write: Write) -> None:
        active = self._writing(write)
        if active is not None:
            self.give_up(active)

    def exists(self, write: Write) -> None:
        assert self.on_conflict is not None
        active = self._writing(write)
        if active is not None:
            self.on_conflict(self._drop(active))

    def rejected(self, write: Write, error: DataRejected | None) -> None:
        active = self._writing(write)
        if active is None:
            return
        if write.new is None:
            assert error is not None
            self._incident(active, error)
        elif error is None:
            gone = f"definition {write.new.definition_id!r} {write.new.version} was deleted meanwhile"
            self._refuse(self._drop(active), FailedPrecondition(gone, reason="DEFINITION_NOT_FOUND"))
        else:
            self._refuse(self._drop(active), InvalidArgument(f"the saga cannot be stored: {error}"))

    def stalled(self, writes: Sequence[Write]) -> None:
        unavailable = Unavailable(
            "PostgreSQL does not take writes now, and this one may still be made: repeat the call with the same ids",
            reason="STORE_UNAVAILABLE",
            retry_after_ms=RETRY_AFTER_MS,
        )
        for write in writes:
            active = self._writing(write)
            if active is None:
                continue
            dones, active.dones = active.dones, []
            if write.revision == 1:
                dones, active.at_rest = [*dones, *active.at_rest], []
            for done in dones:
                done(unavailable)

    # -- effects

    def _act(self, active: ActiveSaga, decision: Decision) -> None:
        """Does what the committed transition says."""
        if active.timers:
            for change in decision.event.changes:
                active.cancel_timer(change.index)
        try:
            for index in decision.waits if active.owned else ():
                self._timers.arm(active, index, active.saga.steps[index].delay_ms)
            for index, direction in decision.calls:
                self.calls.make(active, index, direction)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not take other sagas down
            self._incident(active, error)
            return
        if not active.owned:
            active.cancel_timers()
        elif decision.event.revision == 1 or decision.rearm_deadline:
            self._timers.arm_deadline(active)
        if active.saga.at_rest:
            self._tell_waiters(active)

    def drop_all(self) -> None:
        """This node was declared dead: its sagas belong to others."""
        self.calls.drop()
        self.writer.forget()
        for active in list(self.sagas.values()):
            self.give_up(active)

    async def hand_back(self, limit: int) -> int:
        """Gives up to `limit` sagas that only wait to whoever claims them. Returns how many."""
        idle = [active for active in self.sagas.values() if only_waits(active)][:limit]
        asked = {active.key: (active.epoch, active.saga.revision) for active in idle}
        given: Collection[Key] = asked.keys()
        try:
            given = await self.store.hand_back(asked)
        finally:  # without an answer all of them may be given: what is still ours is taken in again
            for active in idle:
                moved = active.write is not None or active.saga.revision != asked[active.key][1]
                if active.key in given and self.sagas.get(active.key) is active and not moved:
                    self.give_up(active)
        return len(given)

    def _caller(self, call: Call) -> ActiveSaga | None:
        """The saga that a call is of, unless it has ended, is parked, or moved to another node. A start has called
        nobody: its id is then taken by the saga that has."""
        active = self.sagas.get(call.key)
        return active if active is not None and active.saga.revision > 0 else None

    def _may_start(self, call: Call) -> bool:
        active = self._caller(call)
        return self.holds_lease() and active is not None and active.epoch == call.request.fencing_token

    def _answered(self, call: Call, outcome: Outcome) -> None:
        active = self._caller(call)
        if active is None:
            return
        elapsed_ms = active.elapsed_ms(active.saga.steps[call.step].since_revision, self.clock.monotonic())
        answered = Answered(
            call.step, call.direction, call.generation, call.attempt, outcome, elapsed_ms, self.random.random()
        )
        self.submit(active, answered)

    def _over(self, active: ActiveSaga, what: Input) -> None:
        if not self.draining and self.sagas.get(active.key) is active:
            self.submit(active, what)

    def _go_on(self, active: ActiveSaga) -> None:
        """Takes the inputs that waited, up to the next transition."""
        while active.waiting and active.decision is None and self.sagas.get(active.key) is active:
            self._decide(active, *active.waiting.popleft())
        self._forget_if_resting(active)

    # -- leaving memory

    def dismiss_waiters(self) -> None:
        """Tells the callers who wait for the end of a saga that this node stops."""
        for active in self.sagas.values():
            waiters, active.at_rest = active.at_rest, []
            for done in waiters:
                done(shutting_down())

    def _forget_if_resting(self, active: ActiveSaga) -> None:
        if active.resting and self.sagas.get(active.key) is active:
            self._tell_waiters(self._drop(active))

    def _tell_waiters(self, active: ActiveSaga) -> None:
        waiters, active.at_rest = active.at_rest, []
        for done in waiters:
            done(active.snapshot())

    def give_up(self, active: ActiveSaga) -> None:
        """It belongs to another owner."""
        self._refuse(self._drop(active), _moved())

    def _drop(self, active: ActiveSaga) -> ActiveSaga:
        active.cancel_timers()
        if active.saga.locks:
            self.locks.forget(active)
        del self.sagas[active.key]
        return active

    def _refuse(self, active: ActiveSaga, error: SagadError) -> None:
        """Tells everybody who waits for this saga that nothing will come."""
        waiting = [done for _, done in active.waiting if done is not None]
        for done in [*active.dones, *waiting, *active.at_rest]:
            done(error)
        active.dones, active.at_rest = [], []
        active.waiting.clear()

    def _incident(self, active: ActiveSaga, error: BaseException, done: Done | None = None) -> None:
        """The saga's data made the engine raise: parks it as a whole, and takes nothing else down."""
        incident_id = self.random.uid().hex
        self.observer.incident(active.key, incident_id, error)
        if done is not None:
            active.dones.append(done)
        if self.sagas.get(active.key) is active:
            self._drop(active)
        self._refuse(active, Internal(f"sagad failed on this saga; its log has incident {incident_id}"))
        revision, epoch = active.saga.revision, active.epoch
        if active.owned and revision > 0:
            self._spawn(self.incidents.park(active.key, revision, epoch, ParkingReason.INTERNAL, incident_id))


def shutting_down() -> Unavailable:
    """What a caller is told who waits for the end of a saga."""
    return Unavailable(
        "this node is shutting down, and the saga goes on: repeat the call with the same saga_id",
        reason="DRAINING",
        retry_after_ms=RETRY_AFTER_MS,
    )


def _moved() -> Unavailable:
    return Unavailable("the saga moves to another node: try again", reason="TAKING_OVER", retry_after_ms=RETRY_AFTER_MS)
