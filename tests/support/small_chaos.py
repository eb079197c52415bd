"""A node on a virtual clock to which everything happens: commits that fail, lost answers, deaths, operators."""

import asyncio
from random import Random
from typing import Any
from uuid import UUID

from sagad.storage.v1 import storage_pb2
from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.definition import compile_definition
from sagad_server.domain.errors import SagadError, Unavailable
from sagad_server.domain.states import ENDED, Direction, SagaState, StepState
from sagad_server.engine.commands import Start
from sagad_server.engine.ports import Call, Snapshot
from sagad_server.storage.memory_database import MOVING
from sagad_server.storage.store import Key
from support.chaos_ports import ChaosStore, ChaosTransport
from support.definitions import definition, pivot, retriable, step
from support.honest_participants import Honest
from support.play import payload
from support.world import FaultyStore, ScriptedTransport, World

_RETRY = {"initialBackoff": "0.2s", "maxBackoff": "2s", "retryFor": "20s"}
_MAY_REPEAT = ("SAGA_EXISTS", "STORE_UNAVAILABLE", "TAKING_OVER", "DRAINING", "UNAVAILABLE")
_FAST: dict[str, object] = {"retry": _RETRY, "maxRetries": 2, "timeout": "2s", "completionTimeout": "4s"}


def _named(name: str, *steps: dict[str, object]) -> DefinitionMessage:
    return definition(*({**each, **_FAST} for each in steps), definitionId=name)


DEFINITIONS = [
    _named("chain", step("one"), step("two", when="input.n < 8.0"), step("three")),
    _named("pivot", step("one"), pivot("pay", "one"), retriable("ship", "pay"), retriable("mail", "pay")),
    _named(
        "graph",
        step("root"),
        step("left", "root", input='{"n": input.n}'),
        step("right", "root"),
        step("look", "root", compensation=None, readOnly=True),
        step("end", "left", "right", "look"),
    ),
]


class ChanceRandom:
    """The chance that a node is given."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def random(self) -> float:
        return self._chance.random()

    def uid(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128))


class ChaosWorld(World):
    """The world, its clients and operators, and the checks."""

    def __init__(self, seed: int) -> None:
        super().__init__(*DEFINITIONS)
        self.chance = Random(seed)
        self.random = ChanceRandom(self.chance)
        compiled = {message.definition_id: compile_definition(message) for message in DEFINITIONS}
        self.honest = Honest(self.chance, compiled)
        self.calm = False
        self.under_way: list[Call] = []
        """Handed over and not arrived; they arrive even if the node has died."""
        self.asked: list[asyncio.Task[Any]] = []
        self.acknowledged: set[Key] = set()
        self.sent_keys: dict[tuple[Key, int, int], str] = {}
        self.undone: set[str] = set()
        self.incidents: list[object] = []

    def new_store(self) -> FaultyStore:
        return ChaosStore(self)

    def new_transport(self) -> ScriptedTransport:
        return ChaosTransport(self)

    def unlucky(self, share: float) -> bool:
        return not self.calm and self.chance.random() < share

    async def dawdle(self) -> None:
        if self.unlucky(0.3):
            await self.clock.sleep(self.chance.random() * 0.3)

    # -- what happens

    async def run(self, turns: int) -> None:
        """Everything at once, then calm, then the checks that only the end allows."""
        await self.boot()
        for _ in range(turns):
            await self._turn()
        self.calm = self.honest.calm = True
        for _ in range(60):
            await self._arrive_and_work(1.0)
            await self.advance(3)
            if not self.engine.sagas and not self.honest.works and not self.under_way:
                break
        await self.advance(10)  # whatever is stranded is found
        self.check_end()
        await self.die()

    async def _turn(self) -> None:
        roll = self.chance.random()
        if roll < 0.3:
            self._start()
        elif roll < 0.42:
            self._operate()
        elif roll < 0.48:
            await self._reboot(clean=self.chance.random() < 0.3)
        else:
            await self.advance(self.chance.choice([0.05, 0.3, 1, 3]))
        await self._arrive_and_work(0.3)
        await self.settle(self.chance.randrange(12))

    async def _reboot(self, *, clean: bool) -> None:
        if clean:
            self.engine.draining = True
            await self.transport.drain()
            await self.advance(self.chance.choice([0.5, 4]))
        if clean and not self.transport.calls and self.engine.writer.idle:
            await self.store.close()
        self.incidents += self.observer.incidents
        await self.die()
        lost = [*self.asked, *self.commands._answers]  # their connections break
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        for task in self.asked:
            if not task.cancelled():
                task.result()
        self.asked.clear()
        self.clock._timers.clear()  # they were the node's
        await self.boot()

    async def _arrive_and_work(self, share: float) -> None:
        mine = self.transport.calls
        for call in [call for call in self.under_way if call not in mine]:
            if self.chance.random() < share:
                self.under_way.remove(call)
                self.honest.take(call)
        for work in list(self.honest.works):
            if self.chance.random() < share:
                self.honest.work(work)
                if work in self.honest.works:
                    self._ask(self._complete(work))

    def _ask(self, work: Any) -> None:
        self.asked.append(asyncio.get_running_loop().create_task(work))

    async def _complete(self, work: Any) -> None:
        call, outcome = work.call, work.outcome
        try:
            await self.commands.complete(
                call.key, call.request.step_id, call.request.completion_token, outcome, actor="worker"
            )
        except Unavailable:
            return  # again later
        except SagadError as error:
            if error.reason != "STEP_CLOSED":
                raise
        if work in self.honest.works:
            self.honest.works.remove(work)

    def _start(self) -> None:
        number = self.chance.randrange(8)
        key = ("default", f"s{number}")
        name = DEFINITIONS[number % 3].definition_id
        value = {"n": number} if self.chance.random() < 0.9 else {"n": number + 10}
        timeout_ms = 6_000 if number in (3, 4) else None
        command = Start(key, name, "", payload(value), {}, {}, timeout_ms, repr(value).encode())
        self._ask(self._started(command, wait=self.chance.random() < 0.3))

    async def _started(self, command: Start, *, wait: bool) -> None:
        try:
            answer = await self.commands.start(command, wait=wait)
        except SagadError as error:
            if error.reason not in _MAY_REPEAT:
                raise
            return
        assert isinstance(answer, Snapshot)
        assert command.key in self.database.sagas, "acknowledged and not durable"
        assert self.database.sagas[command.key].row.revision >= answer.saga.revision
        assert not wait or answer.saga.ended or answer.saga.state is SagaState.PARKED
        self.acknowledged.add(command.key)

    def _operate(self) -> None:
        if self.database.sagas:
            key = self.chance.choice(sorted(self.database.sagas))
            self._ask(self._operated(key, self.chance.random()))

    async def _operated(self, key: Key, roll: float) -> None:
        try:
            before = await self.commands.get(key)
            assert isinstance(before, Snapshot)
            saga = before.saga
            if roll < 0.3:
                await self.commands.compensate(key, reason="why not", actor="op")
            elif saga.state is SagaState.PARKED and roll < 0.6:
                await self.commands.retry(
                    key, revision=saga.revision, step_id="", new_input=None, reason="again", actor="op"
                )
            elif saga.state is SagaState.PARKED:
                await self._skip(key, saga)
        except SagadError:
            return  # an operator reads again

    async def _skip(self, key: Key, saga: Any) -> None:
        index = next((i for i, one in enumerate(saga.steps) if one.parking_reason is not None), None)
        if index is None:
            return
        name, back = saga.definition.steps[index].step_id, saga.steps[index].state is StepState.COMPENSATION_PARKED
        done = not back and (self.honest.is_done(key, index) or saga.definition.pivot != index)
        self.honest.by_hand(key, saga.idempotency_key(index), index, done=done)
        executed = done if saga.definition.pivot == index else None
        output = payload(saga.idempotency_key(index)) if executed else None
        await self.commands.skip(
            key, revision=saga.revision, step_id=name, executed=executed, output=output, reason="by hand", actor="op"
        )

    # -- what must hold

    def check_call(self, call: Call) -> None:
        """A call goes out after the commit that names it, with the key of its generation, and no action after its
        compensation."""
        request, action = call.request, call.direction is Direction.ACTION
        stored = self.database.sagas[call.key]
        wanted = StepState.RUNNING if action else StepState.COMPENSATING
        for event in reversed(stored.events):
            record = storage_pb2.EventRecord.FromString(event.body)
            found = [c for c in record.changes if c.step_id == request.step_id]
            if found:
                attempt = found[0].attempt if action else found[0].compensation_attempt
                named = (StepState(found[0].state), attempt, found[0].generation)
                assert named == (wanted, call.attempt, call.generation), (named, call)
                break
        else:
            raise AssertionError(f"{call} is not in the journal")
        key = request.idempotency_key
        assert self.sent_keys.setdefault((call.key, call.step, call.generation), key) == key
        assert request.fencing_token == stored.row.epoch
        if action:
            assert key not in self.undone, f"{key} is called after its compensation"
        else:
            self.undone.add(key)

    def check_end(self) -> None:
        for key in self.acknowledged:
            assert key in self.database.sagas, key
        for key, stored in self.database.sagas.items():
            state = SagaState(stored.row.state)
            assert state not in MOVING, (key, state.name, self.engine.sagas.get(key))
            assert [event.revision for event in stored.events] == list(range(1, stored.row.revision + 1))
            self._check_effects(key, stored.row.definition_id, state)
        assert len(set(self.sent_keys.values())) == len(self.sent_keys), "two generations share a key"
        assert self.incidents + self.observer.incidents == []
        hanging = [task for task in self.asked if not task.done()]
        assert hanging == []
        for task in self.asked:
            task.result()
        engine = self.engine
        assert (engine.sagas, engine.calls_in_flight, engine.writer._sent) == ({}, 0, {})
        assert engine.writer.healthy
        assert not any(self.database.loading.values())

    def _check_effects(self, key: Key, name: str, state: SagaState) -> None:
        """Money is conserved: all of it was done, or none of it is left."""
        for index, node in enumerate(self.honest.definitions[name].steps):
            if node.read_only or state not in ENDED:
                continue
            done = self.honest.is_done(key, index)
            if state is SagaState.COMPENSATED:
                assert not done, f"{key} is compensated, and {node.step_id} stands"
            elif state is SagaState.SUCCEEDED and node.when is None:
                assert done, f"{key} has succeeded without {node.step_id}"
