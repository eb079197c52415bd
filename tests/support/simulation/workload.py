"""What is asked of the nodes: clients that start and watch, workers that answer later, operators that intervene."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from sagad.storage.v1 import storage_pb2
from sagad_server.domain.errors import Elsewhere, SagadError, Unavailable
from sagad_server.domain.inputs import Failed, Success
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import ENDED, Direction, SagaState, StepState
from sagad_server.engine.commands import Commands, Start
from sagad_server.engine.ports import Call, Snapshot
from sagad_server.storage.store import EventRow, Key
from support.play import payload
from support.simulation.history import Acknowledged, Watched
from support.simulation.node import ConnectionLost, SimulatedNode

if TYPE_CHECKING:
    from support.simulation.world import SimulatedWorld

_PATIENCE_S = 8.0
_AGAIN_S = 0.5
_OPEN = {
    Direction.ACTION: (StepState.RUNNING, StepState.BACKING_OFF, StepState.AWAITING_COMPLETION),
    Direction.COMPENSATION: (
        StepState.COMPENSATING,
        StepState.COMPENSATION_BACKING_OFF,
        StepState.COMPENSATION_AWAITING_COMPLETION,
    ),
}


def _start(command: Start, wait: bool, node: SimulatedNode) -> Coroutine[Any, Any, Any]:
    return node.commands.start(command, wait=wait)


class Workload:
    """All clients."""

    def __init__(self, world: "SimulatedWorld", sagas: int) -> None:
        self._world = world
        self._chance = world.chance
        self._sagas = sagas
        self._keys: list[Key] = []
        self._tasks: dict[int, tuple[str, asyncio.Task[Any]]] = {}
        self._endless: list[asyncio.Task[Any]] = []
        self._count = 0

    @property
    def busy(self) -> list[str]:
        """What is still being asked."""
        return [name for name, _ in self._tasks.values()]

    def begin(self, seconds: float) -> None:
        """All sagas are started within the first three quarters of this time."""
        pause_s = seconds * 0.75 / self._sagas
        self.spawn("all starts", self._start_all(pause_s))
        for endless in (self._workers(), self._operators(pause_s * 3)):
            self._endless.append(self._world.loop.create_task(self._guarded(endless)))

    def stop(self) -> None:
        for task in self._endless:
            task.cancel()

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        number = self._count = self._count + 1
        task = self._world.loop.create_task(self._guarded(work))
        self._tasks[number] = name, task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - it ends the run
            self._world.fail(error)

    async def _ask(self, request: Callable[[SimulatedNode], Coroutine[Any, Any, Any]]) -> Any:
        """At any node; passed on once to the saga's owner, as nodes do. Raises Unavailable for all that may be asked
        again."""
        nodes = self._world.nodes
        node = self._chance.choice(list(nodes.values()))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                try:
                    return await node.ask(request)
                except Elsewhere as error:
                    owner = [n for n in nodes.values() if n.store.instance_id == error.owner]
                    if not owner:
                        raise
                    return await owner[0].ask(request)
        except (ConnectionLost, TimeoutError) as error:
            raise Unavailable("no answer") from error

    # -- clients

    async def _start_all(self, pause_s: float) -> None:
        for number in range(self._sagas):
            await asyncio.sleep(pause_s * 2 * self._chance.random())
            self.spawn(f"start of s{number}", self._client(number))

    async def _client(self, number: int) -> None:
        key = ("default", f"s{number}")
        name = self._chance.choice(["chain", "pivot", "graph", "random"])
        value = {"n": float(self._chance.randrange(10))}
        timeout_ms = self._chance.choice([None, None, None, 6_000])
        command = Start(key, name, "", payload(value), {}, {}, timeout_ms, repr(value).encode())
        self._keys.append(key)
        if self._chance.random() < 0.15:
            self._watch_soon(key)
        if self._chance.random() < 0.1:  # a client that does not wait before it repeats
            self.spawn(f"other start of {key[1]}", self._started(command))
        await self._started(command)
        if self._chance.random() < 0.1:
            await asyncio.sleep(self._chance.random() * 5)
            await self._started(command)

    async def _started(self, command: Start) -> None:
        while True:
            wait = self._chance.random() < 0.2
            try:
                answer = await self._ask(partial(_start, command, wait))
            except Unavailable:
                await asyncio.sleep(_AGAIN_S * self._chance.random())
                continue
            assert isinstance(answer, Snapshot)
            saga = self._world.database.sagas.get(command.key)
            durable = saga.row.revision if saga is not None else 0
            self._world.history.acknowledged.append(Acknowledged(command.key, answer.saga.revision, durable))
            assert not wait or answer.saga.at_rest, "a caller that waits is told of the end"
            return

    def _watch_soon(self, key: Key) -> None:
        watched = Watched(key)
        self._world.history.watched.append(watched)
        self._endless.append(self._world.loop.create_task(self._guarded(self._watch(watched))))

    async def _watch(self, watched: Watched) -> None:
        while not watched.to_the_end:
            try:
                node = self._chance.choice(list(self._world.nodes.values()))
                await node.ask(lambda node: self._stream(node, watched))
            except (Unavailable, ConnectionLost):
                await asyncio.sleep(_AGAIN_S)

    async def _stream(self, node: SimulatedNode, watched: Watched) -> None:
        """The journal first, then what the engine publishes, the journal again at a gap; as the service does."""
        subscription = node.engine.watches.subscribe(watched.key)
        silent_s = 0.0
        try:
            await self._read_journal(node, watched)
            while not watched.to_the_end:
                event = subscription.take()
                if event is None and subscription.closed:
                    return
                if event is None:
                    await node.clock.sleep(0.3)
                    silent_s += 0.3
                    if silent_s > 2 or watched.key not in node.engine.sagas:
                        silent_s = 0.0
                        await self._read_journal(node, watched)
                elif event.revision == len(watched.seen) + 1:
                    self._show(watched, event)
                elif event.revision > len(watched.seen):
                    await self._read_journal(node, watched)
        finally:
            node.engine.watches.unsubscribe(subscription)

    async def _read_journal(self, node: SimulatedNode, watched: Watched) -> None:
        for event in await node.store.list_events(watched.key, len(watched.seen), 64):
            self._show(watched, event)

    def _show(self, watched: Watched, event: EventRow) -> None:
        saga = self._world.database.sagas.get(watched.key)
        if saga is None or saga.row.revision < event.revision:
            watched.early.append(event.revision)
        watched.seen.append((event.revision, event.body))
        watched.to_the_end = SagaState(storage_pb2.EventRecord.FromString(event.body).state) in ENDED

    # -- participants' workers

    async def _workers(self) -> None:
        works = self._world.participants.works
        while True:
            await asyncio.sleep(0.3)
            for work in list(works):
                if self._world.sky.calm or self._chance.random() < 0.15:
                    works.remove(work)
                    self._world.participants.work(work)
                    if work.outcome is not None:
                        self.spawn("completion", self._complete(work.call, work.outcome))

    def tell_again(self, call: Call) -> None:
        """A participant repeats an answer by CompleteStep, at some time."""

        async def again() -> None:
            await asyncio.sleep(self._chance.random() * 4)
            outcome = self._world.participants.settled(call)
            if outcome is not None:
                await self._complete(call, outcome)

        self.spawn("completion again", again())

    async def _complete(self, call: Call, outcome: Success | Failed) -> None:
        request = call.request
        while True:
            try:
                await self._ask(
                    lambda node: node.commands.complete(
                        call.key, request.step_id, request.completion_token, outcome, actor="worker"
                    )
                )
            except Unavailable as error:
                if error.reason == "SAGA_PARKED" and self._world.sky.calm:
                    return
                await asyncio.sleep(_AGAIN_S)
                continue
            except SagadError as error:
                if error.reason == "OUTCOME_CONFLICT" and isinstance(outcome, Success):
                    self._world.history.contradictions.append(f"{call.key[1]}:{request.step_id}: {error}")
                elif error.reason not in ("STEP_CLOSED", "OUTCOME_CONFLICT"):
                    raise
            else:
                self._look_applied(call, outcome)
            self._world.note("completed", call.key[1], call.step, call.direction.name)
            return

    def _look_applied(self, call: Call, outcome: Success | Failed) -> None:
        """What was accepted is durable: the step does not wait for this answer any more."""
        if not isinstance(outcome, Success):
            return  # a refusal may be followed by another attempt
        row = self._world.database.sagas[call.key].row
        step = storage_pb2.SagaRecord.FromString(row.body).steps[call.step]
        if step.generation == call.generation and StepState(step.state) in _OPEN[call.direction]:
            self._world.history.unapplied.append(
                f"{call.key[1]}:{call.request.step_id} is {StepState(step.state).name} after its answer was accepted"
            )

    # -- operators

    async def _operators(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s * 2 * self._chance.random())
            if self._keys and not self._world.sky.calm:
                self.spawn("operator", self._operate(self._chance.choice(self._keys), self._chance.random()))

    async def _operate(self, key: Key, roll: float) -> None:
        try:
            before = await self._ask(lambda node: node.commands.get(key))
            assert isinstance(before, Snapshot)
            saga = before.saga
            if roll < 0.15 or saga.state is SagaState.PARKED:
                await self._ask(self._intervention(key, saga, roll))
                self._world.note("operator", key[1], saga.revision, f"{roll:.2f}")
        except SagadError:
            return  # an operator reads again

    def _intervention(self, key: Key, saga: Saga, roll: float) -> Callable[[SimulatedNode], Coroutine[Any, Any, Any]]:
        revision, why = saga.revision, {"reason": "why not", "actor": "op"}

        def call(node: SimulatedNode) -> Coroutine[Any, Any, Any]:
            commands: Commands = node.commands
            if roll < 0.25:
                return commands.compensate(key, **why)
            if roll < 0.65:
                return commands.retry(key, revision=revision, step_id="", new_input=None, **why)
            if roll < 0.7:
                return commands.abandon(key, revision=revision, **why)
            return self._skip(commands, key, saga)

        return call

    async def _skip(self, commands: Commands, key: Key, saga: Saga) -> Any:
        index = next((i for i, one in enumerate(saga.steps) if one.parking_reason is not None), None)
        if index is None:
            return None
        back, pivot = saga.steps[index].state is StepState.COMPENSATION_PARKED, saga.definition.pivot == index
        if not (back or pivot or saga.steps[index].may_have_happened):
            # Another operator's RetrySaga may give it a new key at any moment: done by hand under this one, it would be
            # done twice.
            return await commands.retry(
                key, revision=saga.revision, step_id="", new_input=None, reason="again", actor="op"
            )
        idempotency_key = saga.idempotency_key(index)
        participants = self._world.participants
        done = not back and (participants.barrier.get(idempotency_key) == "done" or not pivot)
        participants.by_hand(key, index, idempotency_key, done=done)
        return await commands.skip(
            key,
            revision=saga.revision,
            step_id=saga.definition.steps[index].step_id,
            executed=done if pivot else None,
            output=payload(idempotency_key) if pivot and done else None,
            reason="by hand",
            actor="op",
        )
