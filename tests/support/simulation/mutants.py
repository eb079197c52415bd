"""Deliberate bugs, each with a seed that is known to catch it: the proof that the simulation finds bugs.

A mutant is a piece of a function's source and what stands there instead. A piece that is not found exactly once is an
error, so that the table follows the code.
"""

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType

from support.simulation.world import SimulatedWorld


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug. `where` is module:function, below sagad_server."""

    name: str
    seed: int
    broken: str
    where: str
    old: str
    new: str

    def patch(self) -> None:
        """Puts the bug in, for good."""
        function = self._target()
        module = inspect.getmodule(function)
        assert module is not None
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.old) == 1, f"{self.name}: {source.count(self.old)} times {self.old!r}"
        made: dict[str, FunctionType] = {}
        exec(source.replace(self.old, self.new), module.__dict__, made)  # the project's own source
        function.__code__ = made[function.__name__].__code__

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The bug is in for a while."""
        function = self._target()
        good = function.__code__
        try:
            self.patch()
            yield
        finally:
            function.__code__ = good

    def _target(self) -> FunctionType:
        module_name, path = self.where.split(":")
        found: object = import_module(f"sagad_server.{module_name}")
        for name in path.split("."):
            found = getattr(found, name)
        assert isinstance(found, FunctionType), self.where
        return found

    def is_caught(self, seed: int | None = None) -> bool:
        """Whether this seed breaks a rule with the bug in; None: the recorded one."""
        with self.at_work():
            try:
                SimulatedWorld(self.seed if seed is None else seed).run()
            except Exception:  # noqa: BLE001 - whatever it is, it is the finding
                return True
        return False


_TABLE = [
    Mutant(
        "guard dropped", 0, "a write takes effect wherever the row stands",
        "storage.memory_database:MemoryDatabase.write",
        "if saga is None or (saga.row.epoch, saga.row.revision) != (write.guard_epoch, write.revision - 1):",
        "if saga is None:",
    ),
    Mutant(
        "epoch not guarded", 1, "a write is guarded by the revision alone",
        "storage.memory_database:MemoryDatabase.write",
        "(saga.row.epoch, saga.row.revision) != (write.guard_epoch, write.revision - 1)",
        "saga.row.revision != write.revision - 1",
    ),
    Mutant(
        "event not journaled", 2, "a transition after a take-over leaves no event",
        "storage.memory_database:MemoryDatabase.write",
        "saga.append(write.cause, now, write.event, write.payload, batch_id)",
        "write.cause == EventCause.RECOVERED or saga.append(write.cause, now, write.event, write.payload, batch_id)",
    ),
    Mutant(
        "epoch not raised", 0, "a claim leaves the epoch as it was",
        "storage.memory_claims:_take_over", "saga.row.epoch += 1", "saga.row.epoch += 0",
    ),
    Mutant(
        "missing row is a verdict", 0, "a new saga's row that is not there yet is taken for a refusal",
        "engine.writer:Writer._insert_again", "if not answered or write.key not in self._missed:", "if False:",
    ),
    Mutant(
        "lost answer is a yes", 0, "a commit whose answer was lost is taken for made",
        "engine.writer:Writer._settle", "writes = await self._resolve(writes, sent, answered=False)",
        "[self._owner.written(write, self._store.database.now(), {}) for write in writes]; writes = []",
    ),
    Mutant(
        "stranded not sought", 2, "a claim whose answer was lost is never taken in",
        "engine.recovery:Recovery._find_stranded", "sorted(missing & self._missing)", "()",
    ),
    Mutant(
        "act before the write", 0, "calls go out before their transition is durable",
        "engine.engine:Engine._decide", "self.writer.submit(write)",
        "self._act(active, decision); self.writer.submit(write)",
    ),
    Mutant(
        "back-off timer lost", 1, "a wait that begins has no timer",
        "engine.engine:Engine._act", "self._timers.arm(active, index, active.saga.steps[index].delay_ms)", "pass",
    ),
    Mutant(
        "timer lost in take-over", 0, "the waits of a saga that was taken over have no timers",
        "engine.timers:Timers.arm_all", "self.arm(active, index, max(0, left_ms))", "pass",
    ),
    Mutant(
        "lease ignored", 1, "calls are started past the lease",
        "engine.calls:Calls.make", "if self._holds_lease():", "if True:",
    ),
    Mutant(
        "sagas kept after death", 20, "a node that finds itself dead keeps its sagas",
        "engine.engine:Engine.drop_all", "list(self.sagas.values())", "()",
    ),
    Mutant(
        "dead node keeps acting", 15, "a node that finds itself dead takes that for a renewal",
        "engine.membership:Membership._renew", "if not await self._store.renew():",
        "await self._store.renew()\n    if False:",
    ),
    Mutant(
        "lease counted from the answer", 24, "a lease begins when the renewal is answered, not when it was sent",
        "engine.membership:Membership._renew", "began_s + self._lease_s", "self._clock.monotonic() + self._lease_s",
    ),
    Mutant(
        "no patience", 6, "a node is declared dead before its lease is over",
        "engine.membership:Membership._observe", "self._lease_s * _PATIENCE", "self._lease_s * 0.4",
    ),
    Mutant(
        "waiting caller told too early", 1, "a start that waits for the end is answered when the saga falls asleep",
        "engine.starts:Starts.start", "if wait and isinstance(answer, Snapshot) and not answer.saga.at_rest:",
        "if False:",
    ),
    Mutant(
        "sleeper never woken", 0, "a saga that sleeps comes back for a call alone",
        "engine.recovery:Recovery._wake_sleepers",
        "await self._claim(self._store.wake, min(batch, settings.max_sagas_in_memory - held))", "pass",
    ),
    Mutant(
        "ambiguity forgotten", 0, "a call that timed out counts as not made",
        "domain.answers:_action_ended", "step.may_have_happened = True", "pass",
    ),
    Mutant(
        "ambiguity cleared by a refusal", 4, "a later refusal says that no earlier attempt has happened",
        "domain.answers:_action_ended", "if outcome.never_executed:", "if not outcome.ambiguous:",
    ),
    Mutant(
        "crash forgotten", 3, "a call that was in flight at a take-over counts as not made",
        "domain.decide:call_again", "draft.change(index).step.may_have_happened = True", "pass",
    ),
    Mutant(
        "late answer applied", 1, "the answer of an earlier attempt settles the step",
        "domain.decide:_answered", " or not current", "",
    ),
    Mutant(
        "drained call counted", 0, "a call that never left counts as an attempt",
        "domain.decide:_answered", "changed.attempt -= 1", "pass",
    ),
    Mutant(
        "pending answer lost", 1, "CompleteStep is answered, and what it brought is thrown away",
        "domain.decide:_complete", "if not decide_completion(saga, what):",
        "if not decide_completion(saga, what) or saga.steps[what.step].state is StepState.AWAITING_COMPLETION:",
    ),
    Mutant(
        "deadline over the pivot", 1, "a deadline turns the saga round while its pivot is in flight",
        "domain.saga:Saga.deadline_counts", "self.pivot_in_flight() or ", "",
    ),
    Mutant(
        "forward compensation", 0, "compensations run in the order of the steps",
        "domain.progress:_start_ready_compensations", ".descendants & blocking", ".ancestors & blocking",
    ),
    Mutant(
        "uncertain step not undone", 0, "only what has certainly happened is compensated",
        "domain.progress:must_undo", "in _UNDOABLE", "is StepState.SUCCEEDED",
    ),
    Mutant(
        "retry with a new key", 0, "each attempt has its own idempotency key",
        "domain.saga:Saga.idempotency_key", "{self.steps[index].generation}", "{self.steps[index].attempt}",
    ),
    Mutant(
        "new key by RetrySaga", 13, "RetrySaga gives a new key to what may have happened",
        "domain.operator:_retry_step", "if not step.may_have_happened and step.attempt:", "if step.attempt:",
    ),
    Mutant(
        "parked step not reported", 2, "a parked saga does not say why",
        "engine.records:parking_mask", "mask |= 1 << step.parking_reason", "pass",
    ),
    Mutant(
        "tombstone written", 94, "a purged saga goes on",
        "storage.memory_database:MemoryDatabase.write", "if row.purge_time is not None:", "if False:",
    ),
    Mutant(
        "running sagas purged", 0, "purge takes what has not ended",
        "storage.memory:MemoryStore.purge",
        "if row.state in ENDED and row.end_time is not None and row.end_time <= now - ended_before",
        "if (row.end_time or row.update_time) <= now - ended_before",
    ),
    Mutant(
        "half a batch lost", 5, "of a batch that the store rejects the second half is forgotten",
        "engine.writer:Writer._halve", "await self._settle(writes[middle:], list(sent))", "pass",
    ),
    Mutant(
        "rejected with its batch", 0, "a start that cannot be stored is told of as made",
        "engine.writer:Writer._halve", "self._owner.rejected(writes[0], error)",
        "self._owner.written(writes[0], self._store.database.now(), {})",
    ),
    Mutant(
        "definition deleted in use", 1, "a definition is deleted while sagas name it",
        "storage.memory_definitions:delete", "raise in_use(*key[1:])", "pass",
    ),
    Mutant(
        "forgotten for good", 2, "a pending answer that does not come is awaited for ever",
        "domain.decide:_wait_over",
        "completion_expired(draft, what.step, Direction.ACTION, what.elapsed_ms)", "return None",
    ),
    Mutant(
        "slow watcher loses", 0, "what a slow WatchSagas has no room for is lost",
        "engine.follower:Follower.publish", "self.since = self._rows[-1].cursor", "pass",
    ),
    Mutant(
        "queued call counted with its stream", 132, "a call that waited for a frame is told of as lost with the stream",
        "transport.session:Session.close", "self._put_back()",
        "self._too_early and self._dispatcher.ended(self._too_early, failed, 0.0)",
    ),
    Mutant(
        "handed over, and put back", 55, "what was handed over on a broken stream counts as queued",
        "transport.session:Session.close", "self._end(call_id, failed, now_s)",
        "self._dispatcher.put_back(self._open.pop(call_id).call)",
    ),
    Mutant(
        "calls lost with their stream", 13, "a broken stream ends none of its calls",
        "transport.session:Session.close", "self._end(call_id, failed, now_s)", "pass",
    ),
    Mutant(
        "answer ended twice", 0, "a second answer ends its call again",
        "transport.session:Session._end", "self._open.pop(call_id)", "self._open[call_id]",
    ),
    Mutant(
        "no time over in a session", 10, "a call on a stream is awaited until it is answered",
        "transport.session:Session._time_over", "self._end(call_id, over, now_s)", "pass",
    ),
    Mutant(
        "lease forgotten between frames", 22, "a call that waited for a frame goes out whoever drives its saga now",
        "transport.session:Session._next", "self._put_back()",
        "call, self._too_early = self._too_early, None\n    if call is not None: return call",
    ),
    Mutant(
        "lease ignored in the queue", 18, "a call that has waited goes out whoever drives its saga now",
        "transport.dispatcher:Dispatcher.take", "if call.may_start(call):", "if True:",
    ),
    Mutant(
        "place in its own transaction", 9, "a lane's place goes to Kafka apart from the events before it",
        "mirror.session:Session.write",
        "await asyncio.gather(*await self._producer.send([(topic, messages), (cursor_topic(topic), [place])]))",
        "await asyncio.gather(*await self._producer.send([(topic, messages)]))\n"
        "        await self._producer.commit_transaction()\n"
        "        await self._producer.begin_transaction()\n"
        "        await asyncio.gather(*await self._producer.send([(cursor_topic(topic), [place])]))",
    ),
    Mutant(
        "place read before fencing", 94, "a lane's place is read while its predecessor may still move it",
        "mirror.session:Session.open",
        "await self._producer.start()\n        value = await self._last_value()",
        "value = await self._last_value()\n        await self._producer.start()",
    ),
    Mutant(
        "mirrored above xmin", 14, "the mirror reads what transactions that are open may still precede",
        "storage.memory_journal:MemoryJournal.lane", "self._readable(self._lanes[lane])", "self._lanes[lane]",
    ),
    Mutant(
        "failed producer used again", 24, "a transaction that failed is followed by another one of the same producer",
        "mirror.lane:LaneRelay._relay", "await self._write(session, page, Cursor(self.lane.start_id, mark))",
        "await asyncio.gather(self._write(session, page, Cursor(self.lane.start_id, mark)), return_exceptions=True)",
    ),
    Mutant(
        "owner of a lane ignored", 4, "each node relays all lanes",
        "mirror.mirror:Mirror._turn", "self._run_only(mine[:fair])", "self._run_only(rows)",
    ),
    Mutant(
        "lost end relayed again", 19, "what waits for the end of the next transaction is written once more in it",
        "mirror.session:Session._last_value",
        "return await written.last_value()", "return await committed.last_value()",
    ),
    Mutant(
        "place sent after the events", 754, "a transaction may end before the lane's place belongs to it",
        "mirror.session:Session.write",
        "await asyncio.gather(*await self._producer.send([(topic, messages), (cursor_topic(topic), [place])]))",
        "await asyncio.gather(*await self._producer.send([(topic, messages)]))\n"
        "        await asyncio.gather(*await self._producer.send([(cursor_topic(topic), [place])]))",
    ),
    Mutant(
        "relayed before Kafka has it", 9, "a lane's place is noted in the database before its transaction has ended",
        "mirror.lane:LaneRelay._write", "await session.write(messages, cursor)",
        "self.relayed = cursor.mark.place; await session.write(messages, cursor)",
    ),
    Mutant(
        "purge ahead of the mirror", 4, "purge takes what is not in Kafka yet",
        "storage.memory:MemoryStore.purge", " if database.may_purge(key)", "",
    ),
    Mutant(
        "event at the place purged", 4, "purge takes the event that shows where the mirror is in the journal",
        "storage.memory_mirror:MemoryMirror.is_ahead_of", "last < lane.place", "last <= lane.place",
    ),
    Mutant(
        "locks kept", 0, "the end of a saga does not give its locks back",
        "engine.writes:write_of", "gives_back=saga.ended and bool(saga.locks)", "gives_back=False",
    ),
    Mutant(
        "called while it waits", 0, "a saga that waits for a lock goes on",
        "domain.progress:advance", "if not draft.saga.waits_for_lock:", "if True:",
    ),
    Mutant(
        "undone without its locks", 15, "a saga that has succeeded is undone without taking its locks again",
        "domain.operator:compensate", "if saga.ended and saga.locks", "if False",
    ),
    Mutant(
        "first lock is enough", 0, "a saga goes on with the first lock that it has waited for",
        "domain.decide:_lock_granted", "if behind:", "if False:",
    ),
    Mutant(
        "wait forgotten", 0, "a saga that waits is taken over, and nobody tells it of its lock",
        "engine.engine:Engine.resume", "self.locks.follow(active)", "pass",
    ),
    Mutant(
        "locks not looked for", 2, "what other nodes give back is never looked for",
        "engine.locks:Locks._look_now", "if lock not in self._held and", "if False and",
    ),
    Mutant(
        "tokens lost", 0, "a saga that is taken over does not know what it holds",
        "engine.records:decode_saga", "if name != saga.waits_for_lock", "if False",
    ),
    Mutant(
        "held up for good", 6, "a start that finds its lock taken is dropped",
        "engine.engine:Engine.held_up", "self._decide(active, Begin(queues=True), None)", "self._drop(active)",
    ),
    Mutant(
        "handed back and kept", 554, "what was handed back is kept where the answer is lost",
        "engine.engine:Engine.hand_back", "= asked.keys()", "= ()",
    ),
    Mutant(
        "unknown is purged", 111, "a watch that begins with its saga takes an older look at the store for a purge",
        "engine.watch:Watches._look", "elif seen[key]:", "else:",
    ),
]  # fmt: skip

MUTANTS = {mutant.name: mutant for mutant in _TABLE}
