"""Administrators: they change definitions while sagas run, and purge what has ended."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sagad.v1 import definition_service_pb2 as pb
from sagad_server.domain.errors import SagadError, Unavailable
from sagad_server.domain.states import SagaState
from sagad_server.storage.selection import SagaFilter
from support.simulation.node import SimulatedNode
from support.simulation.recipes import DEFINITION_IDS, random_definition

if TYPE_CHECKING:
    from support.simulation.workload import Workload

_Request = Callable[[SimulatedNode], Coroutine[Any, Any, Any]]
_EXPECTED = ("DEFINITION_EXISTS", "DEFINITION_IN_USE", "DEFINITION_NOT_FOUND")
_MOST_VERSIONS = 4
_NO_CONTEXT: Any = None
"""These calls do not look at it."""


class Administrators:
    """All of them, in the weathers that have any."""

    def __init__(self, workload: "Workload") -> None:
        self._workload = workload
        self._world = workload.world
        self._chance = workload.chance

    def begin(self) -> None:
        weather = self._world.weather
        if weather.edit_every_s is not None:
            self._workload.spawn_endless(self._repeat(weather.edit_every_s, self._edit))
        if weather.purge_every_s is not None:
            self._workload.spawn_endless(self._repeat(weather.purge_every_s, self._purge))

    async def _repeat(self, every_s: float, make: Callable[[], _Request]) -> None:
        while True:
            await asyncio.sleep(every_s * 2 * self._chance.random())
            if self._world.sky.calm:
                return
            try:
                await self._workload.ask(make())
            except Unavailable:
                continue
            except SagadError as error:
                if error.reason not in _EXPECTED:
                    raise
                self._world.note("refused", error.reason)

    def _edit(self) -> _Request:
        """Mostly new versions, which are taken from then on."""
        chance, roll = self._chance, self._chance.random()
        definition_id = chance.choice(DEFINITION_IDS)
        version = f"1.{chance.randrange(_MOST_VERSIONS)}.{chance.choice(['0', '0', '0', '0-rc'])}"
        if roll < 0.5:
            self._world.note("create", definition_id, version)
            create = pb.CreateDefinitionRequest(definition=random_definition(chance, definition_id, version))
            return lambda node: node.definition_service.CreateDefinition(create, _NO_CONTEXT)
        stored = self._world.database.definitions
        versions = sorted(version for _, name, version in stored if name == definition_id)
        name = {"definition_id": definition_id, "version": chance.choice([*versions, version])}
        if roll < 0.65:
            self._world.note("activate", *name.values())
            activate = pb.ActivateDefinitionRequest(**name)
            return lambda node: node.definition_service.ActivateDefinition(activate, _NO_CONTEXT)
        if roll < 0.75:
            self._world.note("deactivate", *name.values())
            deactivate = pb.DeactivateDefinitionRequest(**name)
            return lambda node: node.definition_service.DeactivateDefinition(deactivate, _NO_CONTEXT)
        self._world.note("delete", *name.values())
        delete = pb.DeleteDefinitionRequest(**name)
        return lambda node: node.definition_service.DeleteDefinition(delete, _NO_CONTEXT)

    def _purge(self) -> _Request:
        """As a node's upkeep does it, or PurgeSagas."""
        selection = SagaFilter(states=self._chance.choice([(), (SagaState.SUCCEEDED,), (SagaState.COMPENSATED,)]))
        retention = timedelta(seconds=self._chance.random() * 4)
        limit = self._chance.choice([1, 5, 50])
        return lambda node: node.store.purge("default", selection, retention, limit, dry_run=False)
