"""One process of sagad: the engine with its writer, recovery and membership. It can be killed, frozen and drained."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any

from sagad.v1.participant_service_pb2 import DescribeResponse
from sagad_server.api.definition_service import DefinitionService
from sagad_server.domain.draft import Event
from sagad_server.domain.errors import Unavailable
from sagad_server.domain.inputs import Outcome
from sagad_server.domain.saga import Saga
from sagad_server.domain.validation import ValidationLimits
from sagad_server.engine.commands import Commands
from sagad_server.engine.definitions import Definitions
from sagad_server.engine.engine import Engine
from sagad_server.engine.loader import Loader
from sagad_server.engine.membership import Membership, NodeNameTaken
from sagad_server.engine.ports import Call
from sagad_server.engine.recovery import NoProgress, Recovery
from sagad_server.engine.settings import Settings
from sagad_server.engine.tokens import Tokens
from sagad_server.storage.rows import Key
from sagad_server.storage.store import DataRejected
from support.definitions import PARTICIPANTS
from support.simulation.chance import ChanceRandom
from support.simulation.clock import NodeClock
from support.simulation.mirror import NodeMirror
from support.simulation.store import SimulatedStore
from support.simulation.transport import SimulatedTransport

if TYPE_CHECKING:
    from support.simulation.world import SimulatedWorld

LEASE_S = 4.0
_REFRESH_S = 2.0


class ConnectionLost(Exception):  # noqa: N818 - what a client sees when a node dies
    """Nobody knows what has become of the request."""


class _NoAnswer:
    """Participants that do not describe themselves."""

    async def describe(self, name: str) -> DescribeResponse | str:
        return "not asked"


class SimulatedNode:
    """From its start to its death. A restart makes another one of the same name."""

    def __init__(self, world: "SimulatedWorld", name: str, rate: float, seed: int) -> None:
        self._world = world
        self.name = name
        self.rate = rate
        self.random = ChanceRandom(Random(seed))
        self.clock = NodeClock(world.loop, rate, self.gate)
        self.store = SimulatedStore(world, self)
        self.transport = SimulatedTransport(world, self)
        self.dead = False
        self.frozen = False
        self.partitioned = False
        self.draining = False
        self.replaced = False
        """Another one of its name is to come, or there."""
        self.ready = False
        self.mirror: NodeMirror | None = None
        self._inbox: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._count = 0
        self._clients: dict[int, asyncio.Future[Any]] = {}
        self.spawn(self._boot())

    # -- its life

    async def _boot(self) -> None:
        self.membership = Membership(self.store, self.clock, self.random, LEASE_S)
        await self._until_it_works(lambda: self.membership.join(self.name))
        assert self.membership.node is not None
        tokens = Tokens(await self._until_it_works(lambda: self.store.secret("completion")))
        self.engine = Engine(
            self.store,
            self.clock,
            self.random,
            self.transport,
            self,
            tokens,
            Settings(max_batch=64, watch_buffer=4, least_sleep_ms=1_000),
            self.spawn,
            lambda: self.membership.holds_lease,
        )
        definitions = Definitions(self.store)
        self.definition_service = DefinitionService(
            self.store, definitions, _NoAnswer(), PARTICIPANTS, ValidationLimits()
        )
        loader = Loader(definitions, self.clock)
        self.commands = Commands(self.engine, definitions, loader)
        self.recovery = Recovery(self.engine, loader, self.membership)
        self.recovery.adopt(self.membership.node.suspects)
        self.spawn(self.engine.writer.run())
        self.spawn(self.recovery.run())
        self.spawn(self.membership.run(self.recovery))
        self.spawn(self._refresh(definitions))
        if self._world.topic is not None:
            self.mirror = NodeMirror(self._world, self, self._world.topic)
        self.ready = True
        self._world.note("up", self.name)

    async def _refresh(self, definitions: Definitions) -> None:
        while True:
            await self.clock.sleep(_REFRESH_S)
            definitions.refresh()

    async def _until_it_works(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        while True:
            try:
                return await work()
            except Unavailable:
                await self.clock.sleep(0.3)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        number = self._count = self._count + 1
        task = self._world.loop.create_task(work)
        self._tasks[number] = task
        task.add_done_callback(lambda task: self._ended(number, task))

    def _ended(self, number: int, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(number, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, NodeNameTaken):  # the process ends, and is started again
            self._world.restart(self, 1.0)
        elif error is not None and not self.dead:
            self._world.fail(error)

    def gate(self, callback: Callable[..., object], *arguments: Any) -> None:
        """What reaches this node: at once, when it is thawed, or never."""
        if self.dead:
            return
        if self.frozen:
            self._inbox.append((callback, arguments))
        else:
            callback(*arguments)

    def thaw(self) -> None:
        """It goes on with everything that it had in memory, and has not noticed anything."""
        self.frozen = False
        inbox, self._inbox = self._inbox, []
        for callback, arguments in inbox:
            self._world.loop.call_soon(self.gate, callback, *arguments)

    def kill(self) -> None:
        """As by SIGKILL."""
        self.dead = True
        self.ready = False
        if hasattr(self, "commands"):
            for task in list(self.commands._answers):
                task.cancel()
        for task in list(self._tasks.values()):
            task.cancel()
        if self.mirror is not None:
            self.mirror.kill()
        clients, self._clients = self._clients, {}
        for answer in clients.values():
            if not answer.done():
                answer.set_exception(ConnectionLost())

    async def drain(self) -> bool:
        """Finishes the calls under way and gives everything back. False: it died before."""
        self.draining = self.engine.draining = True
        if self.mirror is not None:
            self.spawn(self.mirror.stop())
        await self.transport.drain()
        for _ in range(40):
            if self.dead or not (self.engine.calls.in_flight or not self.engine.writer.idle):
                break
            await asyncio.sleep(0.1)
        if self.dead:
            return False
        self.engine.watches.close()
        self.engine.journal.close()
        self.engine.dismiss_waiters()
        store, idle = self.store, self.engine.writer.idle
        if idle:
            self.spawn(self._close(store))
            await asyncio.sleep(0.7)
        return not self.dead

    async def _close(self, store: SimulatedStore) -> None:
        try:
            await store.close()
        except Unavailable:
            return  # then others find out by its lease

    # -- what clients ask

    async def ask(self, request: Callable[["SimulatedNode"], Coroutine[Any, Any, Any]]) -> Any:
        """A request over a connection of its own. Raises ConnectionLost, and what the node answers."""
        if self.dead or not self.ready:
            raise ConnectionLost
        answer: asyncio.Future[Any] = self._world.loop.create_future()
        number = self._count = self._count + 1
        self._clients[number] = answer
        self.gate(lambda: self.spawn(self._serve(request, number)))
        try:
            return await answer
        finally:
            self._clients.pop(number, None)

    async def _serve(self, request: Callable[["SimulatedNode"], Coroutine[Any, Any, Any]], number: int) -> None:
        try:
            result = await request(self)
        except Exception as error:  # noqa: BLE001 - it is the answer
            answer = self._clients.get(number)
            if answer is not None and not answer.done():
                answer.set_exception(error)
            return
        answer = self._clients.get(number)
        if answer is not None and not answer.done():
            answer.set_result(result)

    # -- what the engine tells

    def transition(self, saga: Saga, event: Event, age_s: float) -> None:
        self._world.note("durable", self.name, saga.saga_id, event.revision, event.cause.name, event.state.name)

    def attempt_ended(self, call: Call, outcome: Outcome, seconds: float) -> None:
        """The transport of this world does not tell."""

    def committed(self, writes: int, seconds: float) -> None:
        """Nothing that the database does not know better."""

    def commit_failed(self, reason: str) -> None:
        self._world.note("commit failed", self.name, reason)

    def start_refused(self, reason: str) -> None: ...

    def incident(self, key: Key, incident_id: str, error: BaseException) -> None:
        self._world.note("incident", self.name, key[1], repr(error))
        expected = isinstance(error, DataRejected) and key in self._world.history.unstorable
        if not (expected or isinstance(error, NoProgress)):
            self._world.history.incidents.append(f"{key[1]} at {self.name}: {error!r}")
