"""What happens to nodes: kills, freezes, partitions from the database, its outages, drains."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from support.simulation.node import LEASE_S, SimulatedNode

if TYPE_CHECKING:
    from support.simulation.world import SimulatedWorld


async def disturb(world: "SimulatedWorld") -> None:
    """One fault after the other, until cancelled."""
    faults = world.weather.node_faults
    while faults:
        await asyncio.sleep(world.weather.every_s * world.chance.random())
        fault = world.chance.choice(faults)
        ready = [node for node in world.nodes.values() if node.ready and not (node.dead or node.draining)]
        if ready:
            node = world.chance.choice(ready)
            world.note(fault, node.name)
            _FAULTS[fault](world, node)


def _kill(world: "SimulatedWorld", node: SimulatedNode) -> None:
    world.restart(node, world.chance.choice([0.2, 1.0, LEASE_S * 2]))


def _freeze(world: "SimulatedWorld", node: SimulatedNode) -> None:
    node.frozen = True
    world.loop.call_later(world.chance.choice([0.5, 2.0, LEASE_S * 1.1, LEASE_S * 2]), node.thaw)


def _partition(world: "SimulatedWorld", node: SimulatedNode) -> None:
    node.partitioned = True
    world.loop.call_later(world.chance.choice([0.5, 2.0, LEASE_S * 2]), setattr, node, "partitioned", False)


def _outage(world: "SimulatedWorld", node: SimulatedNode) -> None:
    world.database_away = True
    world.loop.call_later(world.chance.choice([0.3, 1.0, LEASE_S]), setattr, world, "database_away", False)


def _drain(world: "SimulatedWorld", node: SimulatedNode) -> None:
    async def drain() -> None:
        if await node.drain():
            world.restart(node, 0.5)

    node.draining = True
    world.workload.spawn("drain", drain())


_FAULTS: dict[str, Callable[["SimulatedWorld", SimulatedNode], None]] = {
    "kill": _kill,
    "freeze": _freeze,
    "partition": _partition,
    "outage": _outage,
    "drain": _drain,
}
