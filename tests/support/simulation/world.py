"""The world of one seed: a database, nodes, participants, and what lies between them."""

import asyncio
import gc
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from random import Random
from unittest.mock import patch
from uuid import UUID

from sagad.storage.v1 import storage_pb2
from sagad_server.domain.states import Direction, StepState
from sagad_server.engine import recovery
from sagad_server.engine.ports import Call
from sagad_server.storage.memory_database import MOVING, MemoryDatabase, MemorySaga
from sagad_server.storage.rows import Key
from sagad_server.transport import session
from support.simulation.chance import ChanceRandom
from support.simulation.checkers import check
from support.simulation.disturbances import disturb
from support.simulation.history import Applied, Dispatch, History, Purged
from support.simulation.loop import VirtualLoop
from support.simulation.mirror import ONE_SEED_IN, MirroredTopic
from support.simulation.node import LEASE_S, SimulatedNode
from support.simulation.participants import Participants
from support.simulation.recipes import definitions_of
from support.simulation.sessions import MAX_FRAME_BYTES
from support.simulation.weather import Sky, Weather
from support.simulation.workload import Workload
from support.world import stored

SAGAS = 100
_SAFETY_S = 25.0
_LIVENESS_S = 150.0
_DRIFT = 0.01
_WORTH_MOVING = 2
"""Sagas above the fair share: of so few, nodes would otherwise give none to each other."""
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class SimulatedWorld:
    """Everything of one seed. `run` gives its history, checked."""

    def __init__(self, seed: int, sagas: int = SAGAS) -> None:
        self.loop = VirtualLoop()
        self.chance = Random(seed)
        self.random = ChanceRandom(Random(seed + 1))
        self.weather = Weather.of(self.chance)
        self.sky = Sky(self.weather, self.chance)
        self.database = MemoryDatabase(lambda: _BEGIN + timedelta(seconds=self.loop.time()))
        self.database.secrets["completion"] = bytes(32)
        for message in definitions_of(self.chance):
            self.database.definitions["default", message.definition_id, message.version] = stored(message)
        self.history = History(self.database, LEASE_S / (1 - _DRIFT) + 0.001)
        self.topic = MirroredTopic(self, seed + 2) if seed % ONE_SEED_IN == ONE_SEED_IN - 1 else None
        self.participants = Participants(self.sky, self.chance, self.history, self.loop.time)
        self.workload = Workload(self, sagas)
        self.nodes: dict[str, SimulatedNode] = {}
        self.database_away = False
        self.travels = 0
        """Calls that are on their way to a participant."""
        self._error: BaseException | None = None
        self._main: asyncio.Task[None] | None = None

    def run(self) -> History:
        """Raises what broke a rule."""
        loop = self.loop
        loop.set_exception_handler(lambda _, context: self.fail(context.get("exception"), context["message"]))
        collects = gc.isenabled()
        gc.disable()
        try:
            self._main = loop.create_task(self._live())
            try:
                with (
                    patch.object(recovery, "_MINIMUM", _WORTH_MOVING),
                    patch.object(session, "MAX_FRAME_BYTES", MAX_FRAME_BYTES),
                    self.topic.logs() if self.topic is not None else nullcontext(),
                ):
                    loop.run_until_complete(self._main)
            except asyncio.CancelledError:
                assert self._error is not None
                raise self._error from None
            check(self.history)
        finally:
            self._end()
            if collects:
                gc.enable()
        return self.history

    def _end(self) -> None:
        loop = self.loop
        loop.set_exception_handler(lambda *_: None)
        for node in self.nodes.values():
            node.kill()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(5):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    async def _live(self) -> None:
        """First everything goes wrong, then nothing, and all must come to rest."""
        for number in range(self.chance.choice([2, 3, 3])):
            self.start(f"n{number + 1}", 1 + self.chance.uniform(-_DRIFT, _DRIFT))
            await asyncio.sleep(self.chance.random() * 0.1)
        self.workload.begin(_SAFETY_S)
        disturbing = [self.loop.create_task(disturb(self))]
        if self.topic is not None:
            disturbing.append(self.loop.create_task(self.topic.disturb()))
        await asyncio.sleep(_SAFETY_S)
        for task in disturbing:
            task.cancel()
        self._clear_up()
        await self._rest()
        self.workload.stop()
        if self.topic is not None:
            self.topic.look()
        self._look_for_left_overs()

    def _clear_up(self) -> None:
        self.note("calm")
        self.sky.calm = True
        self.database_away = False
        if self.topic is not None:
            self.topic.clear_up()
        for node in list(self.nodes.values()):
            node.partitioned = False
            node.thaw()
            if node.draining:
                self.restart(node, 0.5)

    async def _rest(self) -> None:
        quiet = 0
        for _ in range(int(_LIVENESS_S)):
            await asyncio.sleep(1.0)
            quiet = quiet + 1 if self._is_quiet() else 0
            if quiet == 10:
                return

    def _is_quiet(self) -> bool:
        if self.travels or self.participants.works or self.workload.busy:
            return False
        if self.topic is not None and not self.topic.rests():
            return False
        moving = [key for key, saga in self.database.sagas.items() if saga.row.state in MOVING]
        return all(self.history.waits_for_parked(key) for key in moving)

    def _look_for_left_overs(self) -> None:
        left = self.history.left_over
        left += [f"client: {what}" for what in self.workload.busy]
        for instance, keys in self.database.loading.items():
            if keys and self.database.is_live(instance):
                left.append(f"{keys} are marked as being loaded")
        for node in self.nodes.values():
            if not node.ready:
                left.append(f"{node.name} is not up")
                continue
            engine = node.engine
            left += [f"{node.name} holds {key[1]}" for key in engine.sagas if not self.history.waits_for_parked(key)]
            left += [f"{node.name} has {engine.calls.in_flight} calls"] if engine.calls.in_flight else []
            left += [f"{node.name} has {engine.calls.held} held calls"] if engine.calls.held else []
            left += [f"{node.name} has calls in sessions"] if node.transport.unfinished else []
            left += [f"{node.name} has unsettled writes"] if not (engine.writer.idle and engine.writer.healthy) else []

    # -- nodes

    def start(self, name: str, rate: float) -> None:
        self.nodes[name] = SimulatedNode(self, name, rate, self.chance.getrandbits(64))

    def restart(self, node: SimulatedNode, after_s: float) -> None:
        """It is dead from now on, and another one of its name starts later."""
        if node.replaced:
            return
        node.replaced = True
        node.kill()
        self.note("killed", node.name)
        self.loop.call_later(after_s, self.start, node.name, node.rate)

    def reachable(self, node: SimulatedNode) -> bool:
        """Whether requests and answers pass between the node and the database."""
        return not (node.partitioned or self.database_away)

    # -- what is noted

    def note(self, *facts: object) -> None:
        self.history.trace.append((self.loop.time(), *facts))

    def fail(self, error: BaseException | None, message: str = "") -> None:
        """Ends the run."""
        if "never retrieved" in message or self._error is not None:
            return
        self._error = error or AssertionError(message)
        if self._main is not None:
            self._main.cancel()

    def applied(self, node: SimulatedNode, key: Key, revision: int, epoch: int, instance: UUID | None) -> None:
        assert instance is not None
        self.note("applied", node.name, key[1], f"revision {revision}", f"epoch {epoch}")
        place = self.database.journal.last(key) if revision else None
        self.history.applied.append(Applied(self.loop.time(), key, revision, epoch, instance, place))

    def purged(self, saga: MemorySaga) -> None:
        self.note("purged", saga.row.saga_id)
        if self.topic is not None:
            self.topic.purged(saga)
        self.history.purged[saga.row.key] = Purged(saga, len(self.history.applied))

    def dispatched(self, node: SimulatedNode, call: Call) -> None:
        self.note("call", node.name, call.key[1], call.step, call.direction.name, call.generation, call.attempt)
        instance = node.store.instance_id
        self.history.dispatches.append(
            Dispatch(
                self.loop.time(),
                node.name,
                call.key,
                call.step,
                call.direction,
                call.generation,
                call.attempt,
                call.request.idempotency_key,
                self._is_journaled(call),
                self.database.is_live(instance),
                self.loop.time() - node.store.renewed_s,
                dict(call.request.lock_tokens),
                self.database.locks.tokens(call.key),
            )
        )

    def _is_journaled(self, call: Call) -> bool:
        purged, step_id = self.history.purged.get(call.key), call.request.step_id
        saga = self.database.sagas.get(call.key) if purged is None else purged.saga
        action = call.direction is Direction.ACTION
        wanted = (StepState.RUNNING if action else StepState.COMPENSATING, call.generation, call.attempt)
        for event in reversed(saga.events if saga is not None else []):
            for change in storage_pb2.EventRecord.FromString(event.body).changes:
                attempt = change.attempt if action else change.compensation_attempt
                if change.step_id == step_id and (change.state, change.generation, attempt) == wanted:
                    return True
        return False
