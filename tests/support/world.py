"""A node on a virtual clock: the real engine over a store in memory, with participants that answer when the test
says."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.draft import Event
from sagad_server.domain.inputs import NotSent, Outcome
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import Direction
from sagad_server.engine.commands import Commands
from sagad_server.engine.definitions import Definitions
from sagad_server.engine.engine import Engine
from sagad_server.engine.loader import Loader
from sagad_server.engine.membership import Membership
from sagad_server.engine.ports import Call, Random, Snapshot, Tombstone
from sagad_server.engine.recovery import Recovery
from sagad_server.engine.settings import Settings
from sagad_server.engine.starts import Start
from sagad_server.engine.tokens import Tokens
from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase
from sagad_server.storage.nodes import Node
from sagad_server.storage.rows import Key
from sagad_server.storage.writes import Batch, Committed
from support.play import payload

LEASE_S = 8.0


class VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """Time passes only when `advance` is called."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._count = itertools.count()

    def monotonic(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[[], None]) -> VirtualTimer:
        timer = VirtualTimer(callback)
        heapq.heappush(self._timers, (when, next(self._count), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        over = asyncio.get_running_loop().create_future()
        self.call_at(self.now_s + seconds, lambda: None if over.done() else over.set_result(None))
        await over

    def next_at(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def fire_next(self, until_s: float) -> bool:
        """Goes to the next timer up to `until_s` and fires it."""
        due = self.next_at()
        if due is None or due > until_s:
            self.now_s = max(self.now_s, until_s)
            return False
        when, _, timer = heapq.heappop(self._timers)
        self.now_s = max(self.now_s, when)
        callback, timer.callback = timer.callback, None
        assert callback is not None
        callback()
        return True

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now_s)


class FixedRandom:
    """No chance at all."""

    def __init__(self) -> None:
        self._uids = itertools.count(1)

    def random(self) -> float:
        return 0.5

    def uid(self) -> UUID:
        return UUID(int=next(self._uids))


class ScriptedTransport:
    """Keeps calls until the test answers them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.sent: list[str] = []
        """Every call, as 'saga:step' or 'saga:-step'."""
        self.draining = False

    def send(self, call: Call) -> None:
        if self.draining:
            asyncio.get_running_loop().call_soon(call.on_outcome, call, NotSent("draining"))
            return
        self.calls.append(call)
        self.sent.append(name(call))

    async def drain(self) -> None:
        self.draining = True

    def take(self, wanted: str) -> Call:
        for call in self.calls:
            if name(call) == wanted:
                self.calls.remove(call)
                return call
        raise AssertionError(f"no call {wanted} among {[name(c) for c in self.calls]}")


def name(call: Call) -> str:
    sign = "" if call.direction is Direction.ACTION else "-"
    return f"{call.key[1]}:{sign}{call.request.step_id}"


class FaultyStore(MemoryStore):
    """A store that fails where the test says."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.commits = 0
        self.before: list[BaseException] = []
        """Raised instead of the next commits."""
        self.after: list[BaseException] = []
        """Raised after the next commits were made."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, batch: Batch) -> Committed:
        await self.gate.wait()
        if self.before:
            raise self.before.pop(0)
        committed = await super().commit(batch)
        self.commits += 1
        if self.after:
            raise self.after.pop(0)
        return committed


class QuietObserver:
    def __init__(self) -> None:
        self.incidents: list[tuple[Key, BaseException]] = []
        self.failures: list[str] = []
        self.batches: list[int] = []

    def transition(self, saga: Saga, event: Event, age_s: float) -> None:
        assert age_s >= 0

    def attempt_ended(self, call: Call, outcome: Outcome, seconds: float) -> None:
        raise AssertionError("the scripted transport does not tell")

    def committed(self, writes: int, seconds: float) -> None:
        self.batches.append(writes)

    def commit_failed(self, reason: str) -> None:
        self.failures.append(reason)

    def start_refused(self, reason: str) -> None: ...

    def incident(self, key: Key, incident_id: str, error: BaseException) -> None:
        self.incidents.append((key, error))


class World:
    """A database that outlives nodes, and the node of the moment. `beside` another one: a second node on its
    database."""

    def __init__(
        self,
        *definitions: DefinitionMessage,
        settings: Settings | None = None,
        name: str = "n1",
        beside: "World | None" = None,
    ) -> None:
        self.name = name
        self.clock = VirtualClock() if beside is None else beside.clock
        self.database = MemoryDatabase(self.clock.now) if beside is None else beside.database
        self.random: Random = FixedRandom() if beside is None else beside.random
        self.settings = settings or Settings()
        self.renews = beside is not None
        """Whether the lease counts: a node alone needs none."""
        self._messages = definitions
        self._tasks: list[asyncio.Task[None]] = []

    async def boot(self) -> Node:
        """Starts a node on the database."""
        self.store = self.new_store()
        self.membership = Membership(self.store, self.clock, self.random, LEASE_S)
        await self.membership.join(self.name)
        node = self.membership.node
        assert node is not None
        for message in self._messages:
            await self.store.create_definition(stored(message), 1000, 10_000)
        self.transport = self.new_transport()
        self.observer = QuietObserver()
        tokens = Tokens(await self.store.secret("completion"))
        self.engine = Engine(
            self.store,
            self.clock,
            self.random,
            self.transport,
            self.observer,
            tokens,
            self.settings,
            self.spawn,
            self.lease,
        )
        definitions = Definitions(self.store)
        self.loader = Loader(definitions, self.clock)
        self.commands = Commands(self.engine, definitions, self.loader)
        self.recovery = Recovery(self.engine, self.loader, self.membership)
        self.recovery.adopt(node.suspects)
        self.spawn(self.engine.writer.run())
        self.spawn(self.recovery.run())
        if self.renews:
            self.spawn(self.membership.run(self.recovery))
        await self.settle()
        return node

    def lease(self) -> bool:
        return not self.renews or self.membership.holds_lease

    def new_store(self) -> FaultyStore:
        return FaultyStore(self.database)

    def new_transport(self) -> ScriptedTransport:
        return ScriptedTransport()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def die(self) -> None:
        """As by SIGKILL."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._tasks:
            if not task.cancelled() and task.exception() is not None and not isinstance(task.exception(), Death):
                raise task.exception() or AssertionError
        self._tasks.clear()
        self.store.die()

    async def settle(self, turns: int = 60) -> None:
        """Lets everything run that needs no time to pass."""
        for _ in range(turns):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.settle()
        until_s = self.clock.now_s + seconds
        while self.clock.fire_next(until_s):
            await self.settle()
        await self.settle()

    def starting(
        self, saga_id: str, value: object = None, *, wait: bool = False, timeout_ms: int | None = None
    ) -> "asyncio.Task[Snapshot | Tombstone]":
        command = Start(("default", saga_id), "order", "", payload(value), {}, {}, timeout_ms, repr(value).encode())
        return asyncio.get_running_loop().create_task(self.commands.start(command, wait=wait))

    async def start(self, saga_id: str, value: object = None, *, timeout_ms: int | None = None) -> Saga:
        task = self.starting(saga_id, value, timeout_ms=timeout_ms)
        await self.settle()
        snapshot = await task
        assert isinstance(snapshot, Snapshot)
        return snapshot.saga

    async def answer(self, call: str, outcome: Outcome) -> Call:
        taken = self.transport.take(call)
        taken.on_outcome(taken, outcome)
        await self.settle()
        return taken

    async def saga(self, saga_id: str) -> Saga:
        snapshot = await self.commands.get(("default", saga_id))
        assert isinstance(snapshot, Snapshot)
        return snapshot.saga

    def journal(self, saga_id: str) -> list[int]:
        return [event.revision for event in self.database.sagas["default", saga_id].events]


class Death(BaseException):
    """The process is gone in the middle of something."""


def stored(message: DefinitionMessage) -> StoredDefinition:
    return StoredDefinition(
        namespace="default",
        definition_id=message.definition_id,
        version=message.version,
        active=True,
        step_count=len(message.steps),
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
        body=message.SerializeToString(),
    )
