"""The way from one node to the database: requests and answers take time, and get lost before, during and after."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sagad_server.domain.errors import Unavailable
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemorySaga
from sagad_server.storage.nodes import Node
from sagad_server.storage.rows import Key, LoadedSaga, RowState
from sagad_server.storage.store import CommitUnknown, DataRejected, Retryable
from sagad_server.storage.writes import Batch, Committed
from support.simulation.participants import UNSTORABLE
from support.simulation.recipes import compiled

if TYPE_CHECKING:
    from support.simulation.node import SimulatedNode
    from support.simulation.world import SimulatedWorld

_FAST_S = 0.002
_SLOW_S = 0.3
_STUCK_S = 4.0
_SILENCE_S = 0.5
"""After which a node takes a request for lost."""
_METHODS = (
    "announce",
    "nodes",
    "declare_dead",
    "close",
    "mark_loading",
    "count_crash",
    "grant",
    "load",
    "get_row",
    "list_events",
    "moved",
    "hand_back",
    "count_owned",
    "stranded",
    "create_definition",
    "get_definition",
    "list_definitions",
    "set_definition_active",
    "delete_definition",
    "journal_end",
    "read_journal",
    "secret",
)


class SimulatedStore(MemoryStore):
    """A MemoryStore that lies behind a network."""

    def __init__(self, world: "SimulatedWorld", node: "SimulatedNode") -> None:
        super().__init__(world.database, world.random.uid)
        self._world = world
        self._node = node
        self.renewed_s = 0.0
        """When the last renewal that was answered had been sent."""
        for name in _METHODS:
            setattr(self, name, partial(self._read, getattr(super(), name)))

    @property
    def instance_id(self) -> UUID | None:
        return self._instance_id

    async def open(self, node_name: str) -> Node:
        self._node_name = node_name
        return await self.register()

    async def register(self) -> Node:
        sent_s = self._world.loop.time()
        real = super().register

        async def register() -> Node:
            if self._node.dead:  # a transaction of several statements ends with its connection
                raise Unavailable("cut off")
            return await real()

        node: Node = await self._read(register)
        self._instance_id = node.instance_id
        self.renewed_s = sent_s
        self._world.note("registered", self._node.name, node.incarnation)
        return node

    async def renew(self) -> bool:
        sent_s = self._world.loop.time()
        renewed: bool = await self._read(super().renew)
        if renewed:
            self.renewed_s = sent_s
        return renewed

    async def claim(self, limit: int, exclude: Any) -> list[LoadedSaga]:
        return await self._read(self._claimed(super().claim), limit, exclude)  # type: ignore[no-any-return]

    async def wake(self, limit: int) -> list[LoadedSaga]:
        return await self._read(self._claimed(super().wake), limit)  # type: ignore[no-any-return]

    async def claim_one(self, key: Key) -> LoadedSaga | None:
        return await self._read(self._claimed(super().claim_one), key)  # type: ignore[no-any-return]

    def _claimed(self, real: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def claim(*arguments: object) -> Any:
            found = await real(*arguments)
            for loaded in found if isinstance(found, list) else [found] if found else []:
                self._world.applied(self._node, loaded.row.key, 0, loaded.row.epoch, self._instance_id)
            return found

        return claim

    async def park(self, key: Key, *, revision: int, epoch: int, reason: int, incident_id: str, event: bytes) -> bool:
        real = partial(
            super().park, key, revision=revision, epoch=epoch, reason=reason, incident_id=incident_id, event=event
        )

        async def park() -> bool:
            parked = await real()
            if parked:
                self._world.applied(self._node, key, revision + 1, epoch + 1, self._instance_id)
            return parked

        return await self._read(park)  # type: ignore[no-any-return]

    async def commit(self, batch: Batch) -> Committed:
        sky = self._world.sky
        early = sky.chance.choice([Retryable, CommitUnknown]) if not sky.calm else Retryable
        late = self._world.sky.strikes("commit_late")
        xid = self._world.topic.open_commit() if self._world.topic is not None else 0
        return await self._call(  # type: ignore[no-any-return]
            partial(self._commit_now, super().commit, batch, xid), "commit", early, CommitUnknown, late=late
        )

    async def _commit_now(
        self, real: Callable[[Batch], Coroutine[Any, Any, Committed]], batch: Batch, xid: int
    ) -> Committed:
        for write in batch.writes:
            if UNSTORABLE.encode() in write.payload:
                raise DataRejected(UNSTORABLE)
        with self.database.journal.within(xid):
            committed = await real(batch)
        for write in batch.writes:
            if write.key in committed.keys:
                if write.new is not None:
                    name = write.key[0], write.new.definition_id, write.new.version
                    self._world.history.recipes[write.key] = compiled(self.database.definitions[name].body)
                self._world.applied(self._node, write.key, write.revision, write.epoch, self._instance_id)
        return committed

    async def purge(self, *arguments: Any, **options: Any) -> int:
        real = partial(super().purge, *arguments, **options)
        world = self._world

        async def purge() -> int:
            bodies = {key: (saga.row.body, saga.events) for key, saga in world.database.sagas.items()}
            number = await real()
            for key, (body, events) in bodies.items():
                saga = world.database.sagas[key]
                if saga.row.purge_time is not None and key not in world.history.purged:
                    world.purged(MemorySaga(replace(saga.row, body=body), events=events))
            return number

        return await self._read(purge)  # type: ignore[no-any-return]

    async def resolve(self, keys: Sequence[Key]) -> dict[Key, RowState]:
        return await self._call(partial(super().resolve, keys), "read", Retryable, Retryable)  # type: ignore[no-any-return]

    async def _read(self, real: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any) -> Any:
        return await self._call(partial(real, *args, **kwargs), "read", Unavailable, Unavailable)

    async def _call(
        self,
        work: Callable[[], Coroutine[Any, Any, Any]],
        kind: str,
        early: type[Exception],
        lost: type[Exception],
        *,
        late: bool = False,
    ) -> Any:
        """Sends `work` to the database. `early` if it was certainly not done, `lost` if nobody knows. `late`: it is
        taken for lost, and done after that."""
        world, loop, gate = self._world, self._world.loop, self._node.gate
        answer: asyncio.Future[Any] = loop.create_future()
        sent_as = self._instance_id

        def fail(error: type[Exception] | Exception) -> None:
            if not answer.done():
                answer.set_exception(error("cut off") if isinstance(error, type) else error)

        def succeed(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        def arrive() -> None:
            if not world.reachable(self._node) or world.sky.strikes(kind + "_before"):
                loop.call_later(_SILENCE_S * world.sky.chance.random(), gate, fail, early)
                return
            now_as, self._instance_id = self._instance_id, sent_as
            try:
                result = _run(work())
            except Exception as error:  # noqa: BLE001 - it is the answer
                loop.call_later(self._delay_s(), gate, fail, error)
                return
            finally:
                self._instance_id = now_as
            if world.sky.strikes(kind + "_after") or not world.reachable(self._node):
                loop.call_later(_SILENCE_S * world.sky.chance.random(), gate, fail, lost)
                return
            loop.call_later(self._delay_s(), gate, succeed, result)

        if late:
            gate(loop.call_later, 0.1, gate, fail, lost)
            gate(loop.call_later, 0.1 + world.sky.chance.random(), arrive)
        else:
            gate(loop.call_later, self._delay_s(), arrive)
        return await answer

    def _delay_s(self) -> float:
        sky = self._world.sky
        most_s = _STUCK_S if sky.strikes("stuck_store") else _SLOW_S if sky.strikes("slow_store") else 0.0
        return _FAST_S + most_s * sky.chance.random()


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """The database does it at once."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a store in memory does not wait")
