"""Clients that start sagas, and repeat themselves."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf.struct_pb2 import Struct, Value

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SagadError,
    Unavailable,
)
from sagad_server.engine.ports import Snapshot, Tombstone
from sagad_server.engine.starts import Start
from sagad_server.storage.rows import Key
from support.simulation.history import Acknowledged
from support.simulation.node import SimulatedNode
from support.simulation.recipes import DEFINITION_IDS

if TYPE_CHECKING:
    from support.simulation.workload import Workload

_REFUSALS = ("DEFINITION_INACTIVE", "DEFINITION_NOT_FOUND")


async def _start(command: Start, wait: bool, node: SimulatedNode) -> Snapshot | Tombstone:
    return await node.commands.start(command, wait=wait)


class Clients:
    """One for each saga. `keys` are the sagas that were asked for."""

    def __init__(self, workload: "Workload", sagas: int) -> None:
        self._workload = workload
        self._chance = workload.chance
        self._history = workload.world.history
        self.sagas = sagas
        self.keys: list[Key] = []
        self._maybe: set[Key] = set()
        """What may have been started."""

    async def start_all(self, pause_s: float) -> None:
        for number in range(self.sagas):
            await asyncio.sleep(pause_s * 2 * self._chance.random())
            self._workload.spawn(f"start of s{number}", self._client(f"s{number}"))

    async def _client(self, saga_id: str) -> None:
        command = self._command(("default", saga_id))
        self.keys.append(command.key)
        if self._chance.random() < 0.15:
            self._workload.watchers.watch_soon(command.key)
        if self._chance.random() < 0.1:  # it does not wait before it repeats
            self._workload.spawn(f"other start of {saga_id}", self._started(command))
        await self._started(command)
        if self._chance.random() < 0.15:
            await asyncio.sleep(self._chance.random() * self._chance.choice([1, 5, 25]))
            await self._started(command)

    def _command(self, key: Key) -> Start:
        chance = self._chance
        definition_id = chance.choice(DEFINITION_IDS)
        stored = self._workload.world.database.definitions
        versions = sorted(version for _, name, version in stored if name == definition_id)
        version = chance.choice(versions) if versions and chance.random() < 0.15 else ""
        numbers = {"n": float(chance.randrange(10))}
        if chance.random() < 0.8:
            numbers["m"] = float(chance.randrange(5))
        labels = {"note": "not\0storable"} if self._workload.world.sky.strikes("unstorable") else {}
        timeout_ms = chance.choice([None, None, None, 6_000])
        fields = {name: Value(number_value=number) for name, number in numbers.items()}
        given = Payload(json=Value(struct_value=Struct(fields=fields)))
        content = repr((definition_id, version, numbers, labels, timeout_ms)).encode()
        return Start(key, definition_id, version, given, labels, {}, timeout_ms, content)

    async def _started(self, command: Start) -> None:
        while True:
            wait = self._chance.random() < 0.2
            try:
                answer = await self._workload.ask(partial(_start, command, wait))
            except SagadError as error:
                world = self._workload.world
                if self._is_final(command, error) or (world.sky.calm and world.history.waits_for_parked(command.key)):
                    return
                await self._workload.pause()
            else:
                self._acknowledged(command.key, answer, wait=wait)
                return

    def _is_final(self, command: Start, error: SagadError) -> bool:
        """Whether it is no use to ask again. Raises what no client should ever see."""
        key = command.key
        if isinstance(error, ResourceExhausted):  # certainly not started
            return False
        if isinstance(error, Unavailable) or (isinstance(error, Internal) and key in self._history.unstorable):
            self._maybe.add(key)
            self._history.refused.discard(key)
            return False
        refused = isinstance(error, FailedPrecondition | NotFound) and error.reason in _REFUSALS
        if not (refused or (isinstance(error, InvalidArgument) and command.labels)):
            raise error
        if key not in self._maybe:
            self._history.refused.add(key)
        return True

    def _acknowledged(self, key: Key, answer: Snapshot | Tombstone, *, wait: bool) -> None:
        saga = self._workload.world.database.sagas.get(key)
        durable = saga.row.revision if saga is not None else 0
        revision = answer.revision if isinstance(answer, Tombstone) else answer.saga.revision
        self._maybe.add(key)
        self._history.refused.discard(key)
        self._history.acknowledged.append(Acknowledged(key, revision, durable))
        if isinstance(answer, Snapshot) and wait:
            assert answer.saga.at_rest, "a caller that waits is told of the end"
