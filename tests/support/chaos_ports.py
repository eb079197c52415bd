"""A store and a transport that fail at random."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from sagad_server.domain.errors import Unavailable
from sagad_server.domain.inputs import NotSent, Outcome
from sagad_server.engine.ports import Call
from sagad_server.storage.store import Batch, Committed, CommitUnknown, Key, Retryable, RowState
from support.play import TIMED_OUT, code
from support.world import FaultyStore, ScriptedTransport

if TYPE_CHECKING:
    from support.small_chaos import ChaosWorld


class ChaosStore(FaultyStore):
    """Commits and reads fail at random, before and after they are made."""

    def __init__(self, world: "ChaosWorld") -> None:
        super().__init__(world.database)
        self._world = world
        for name in ("claim", "claim_one", "mark_loading", "count_crash", "park", "load", "get_row", "stranded"):
            setattr(self, name, self._unreliable(getattr(self, name)))

    def _unreliable(self, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def read(*args: object, **kwargs: object) -> object:
            await self._world.dawdle()
            if self._world.unlucky(0.06):
                raise Unavailable("away")
            answer = await real(*args, **kwargs)
            await self._world.dawdle()
            if self._world.unlucky(0.02):
                raise Unavailable("answer lost")
            return answer

        return read

    async def commit(self, batch: Batch) -> Committed:
        await self._world.dawdle()
        if self._world.unlucky(0.12):
            raise self._world.chance.choice([Retryable("away"), CommitUnknown("cut off before")])
        committed = await super().commit(batch)
        await self._world.dawdle()
        if self._world.unlucky(0.08):
            raise CommitUnknown("cut off after")
        return committed

    async def resolve(self, keys: Sequence[Key]) -> dict[Key, RowState]:
        await self._world.dawdle()
        if self._world.unlucky(0.2):
            raise Retryable("away")
        return await super().resolve(keys)


class ChaosTransport(ScriptedTransport):
    """Delivers late, twice never, sometimes after the coordinator has given the call up; and checks every call."""

    def __init__(self, world: "ChaosWorld") -> None:
        super().__init__()
        self._world = world

    def send(self, call: Call) -> None:
        world = self._world
        if self.draining or world.unlucky(0.04):
            asyncio.get_running_loop().call_soon(call.on_outcome, call, NotSent("not now"))
            return
        world.check_call(call)
        now_s, chance = world.clock.now_s, world.chance
        self.calls.append(call)
        arrival_s = chance.random() * (0.5 if world.calm else 3)
        lost = world.unlucky(0.15)

        def arrive() -> None:
            if call in world.under_way:
                world.under_way.remove(call)
                turned_away = world.unlucky(0.08)  # by what stands before the participant
                outcome = code("PERMISSION_DENIED") if turned_away else world.honest.take(call)
                ends = code(chance.choice(["UNAVAILABLE", "INTERNAL", "ALREADY_EXISTS"])) if lost else outcome
                world.clock.call_at(world.clock.now_s + chance.random(), lambda: self._answer(call, ends))

        world.under_way.append(call)
        world.clock.call_at(now_s + arrival_s, arrive)
        world.clock.call_at(now_s + 2, lambda: self._answer(call, TIMED_OUT))

    def _answer(self, call: Call, outcome: Outcome) -> None:
        if call in self.calls:
            self.calls.remove(call)
            call.on_outcome(call, outcome)
