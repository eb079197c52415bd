"""Operators, who intervene: mostly where a saga is parked."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sagad_server.domain.errors import SagadError
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import SagaState, StepState
from sagad_server.engine.commands import Commands
from sagad_server.engine.ports import Snapshot
from sagad_server.storage.rows import Key
from support.simulation.node import SimulatedNode
from support.simulation.participants import text

if TYPE_CHECKING:
    from support.simulation.workload import Workload

_WHY = {"reason": "why not", "actor": "op"}


class Operators:
    """All of them."""

    def __init__(self, workload: "Workload") -> None:
        self._workload = workload
        self._world = workload.world
        self._chance = workload.chance

    async def run(self, pause_s: float) -> None:
        keys = self._workload.clients.keys
        while True:
            await asyncio.sleep(pause_s * 2 * self._chance.random())
            if keys and not self._world.sky.calm:
                self._workload.spawn("operator", self._operate(self._chance.choice(keys), self._chance.random()))

    async def _operate(self, key: Key, roll: float) -> None:
        try:
            before = await self._workload.ask(lambda node: node.commands.get(key))
            if not isinstance(before, Snapshot):
                return
            saga = before.saga
            if roll < 0.15 or saga.state is SagaState.PARKED:
                await self._workload.ask(self._intervention(key, saga, roll))
                self._world.note("operator", key[1], saga.revision, f"{roll:.2f}")
        except SagadError:
            return  # an operator reads again

    def _intervention(self, key: Key, saga: Saga, roll: float) -> Callable[[SimulatedNode], Coroutine[Any, Any, Any]]:
        def call(node: SimulatedNode) -> Coroutine[Any, Any, Any]:
            commands = node.commands
            if roll < 0.25:
                return commands.compensate(key, **_WHY)
            if roll < 0.55:
                return self._retry(commands, key, saga)
            if roll < 0.65:
                return self._retry_with_input(commands, key, saga)
            if roll < 0.7:
                return commands.abandon(key, revision=saga.revision, **_WHY)
            return self._skip(commands, key, saga)

        return call

    def _retry(self, commands: Commands, key: Key, saga: Saga) -> Coroutine[Any, Any, Any]:
        return commands.retry(key, revision=saga.revision, step_id="", new_input=None, **_WHY)

    async def _retry_with_input(self, commands: Commands, key: Key, saga: Saga) -> Any:
        index = _parked(saga)
        if index is None:
            return None
        step_id, new_input = saga.definition.steps[index].step_id, text("another input")
        return await commands.retry(key, revision=saga.revision, step_id=step_id, new_input=new_input, **_WHY)

    async def _skip(self, commands: Commands, key: Key, saga: Saga) -> Any:
        index = _parked(saga)
        if index is None:
            return None
        back, pivot = saga.steps[index].state is StepState.COMPENSATION_PARKED, saga.definition.pivot == index
        if not (back or pivot or saga.steps[index].may_have_happened):
            # Another operator's RetrySaga may give it a new key at any moment: done by hand under this one, it would be
            # done twice.
            return await self._retry(commands, key, saga)
        idempotency_key = saga.idempotency_key(index)
        participants = self._world.participants
        done = not back and (participants.barrier.get(idempotency_key) == "done" or not pivot)
        participants.by_hand(key, index, idempotency_key, done=done)
        return await commands.skip(
            key,
            revision=saga.revision,
            step_id=saga.definition.steps[index].step_id,
            executed=done if pivot else None,
            output=text(idempotency_key) if pivot and done else None,
            **_WHY,
        )


def _parked(saga: Saga) -> int | None:
    return next((i for i, one in enumerate(saga.steps) if one.parking_reason is not None), None)
