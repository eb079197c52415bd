"""What is asked of the nodes, by clients, participants' workers, operators and administrators."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sagad_server.domain.errors import Elsewhere, Unavailable
from support.simulation.administrators import Administrators
from support.simulation.clients import Clients
from support.simulation.node import ConnectionLost, SimulatedNode
from support.simulation.operators import Operators
from support.simulation.watchers import Watchers
from support.simulation.workers import Workers

if TYPE_CHECKING:
    from support.simulation.world import SimulatedWorld

_PATIENCE_S = 8.0
_AGAIN_S = 0.5


class Workload:
    """All of them, and what they do just now."""

    def __init__(self, world: "SimulatedWorld", sagas: int) -> None:
        self.world = world
        self.chance = world.chance
        self.watchers = Watchers(self)
        self.clients = Clients(self, sagas)
        self.workers = Workers(self)
        self._operators = Operators(self)
        self._administrators = Administrators(self)
        self._tasks: dict[int, tuple[str, asyncio.Task[Any]]] = {}
        self._endless: list[asyncio.Task[Any]] = []
        self._count = 0

    @property
    def busy(self) -> list[str]:
        """What is still being asked."""
        return [name for name, _ in self._tasks.values()]

    def begin(self, seconds: float) -> None:
        """All sagas are started within the first three quarters of this time."""
        pause_s = seconds * 0.75 / self.clients.sagas
        self.spawn("all starts", self.clients.start_all(pause_s))
        self.spawn_endless(self.workers.run())
        self.spawn_endless(self._operators.run(pause_s))
        self.watchers.begin()
        self._administrators.begin()

    def stop(self) -> None:
        for task in self._endless:
            task.cancel()

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Work that must come to an end."""
        number = self._count = self._count + 1
        task = self.world.loop.create_task(self._guarded(work))
        self._tasks[number] = name, task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    def spawn_endless(self, work: Coroutine[Any, Any, None]) -> None:
        self._endless.append(self.world.loop.create_task(self._guarded(work)))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - it ends the run
            self.world.fail(error)

    def any_node(self) -> SimulatedNode:
        return self.chance.choice(list(self.world.nodes.values()))

    async def ask(self, request: Callable[[SimulatedNode], Coroutine[Any, Any, Any]]) -> Any:
        """At any node; passed on once to the saga's owner, as nodes do. Raises Unavailable for all that may be asked
        again."""
        nodes = self.world.nodes
        try:
            async with asyncio.timeout(_PATIENCE_S):
                try:
                    return await self.any_node().ask(request)
                except Elsewhere as error:
                    owner = [n for n in nodes.values() if n.store.instance_id == error.owner]
                    if not owner:
                        raise
                    return await owner[0].ask(request)
        except (ConnectionLost, TimeoutError) as error:
            raise Unavailable("no answer") from error

    async def pause(self) -> None:
        """Before what failed is asked again."""
        await asyncio.sleep(_AGAIN_S * self.chance.random())
