"""The whole: nodes, their PostgreSQL servers, participants, and a proxy on every line between them."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sagad_client import Client, load_definitions
from sagad_examples.definition_files import definition_files
from support.chaos.pair import Pair
from support.chaos.participants import ParticipantProcess
from support.processes import SagadProcess, free_port
from support.proxy import Proxy
from support.shop import PATIENT, Shop

PARTICIPANTS = ("inventory", "payment", "shipping")
NODES = 3


@dataclass
class World:
    """What a fault can strike."""

    pair: Pair
    chance: random.Random
    lease_s: float
    examples_dsn: str
    """Of the participants' tables, in a PostgreSQL that no fault strikes: it is the witness."""
    nodes: list[SagadProcess] = field(default_factory=list)
    participants: list[ParticipantProcess] = field(default_factory=list)
    store_lines: list[list[Proxy]] = field(default_factory=list)
    """By node: its lines to the two servers."""
    participant_lines: list[Proxy] = field(default_factory=list)
    peer_lines: list[Proxy] = field(default_factory=list)
    """By node: the line by which others reach it."""
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shop = Shop(self.clients, self.chance)

    async def serve(self) -> None:
        """Returns when all nodes serve."""
        for node in self.nodes:
            await asyncio.to_thread(node.wait_until_serving)


@asynccontextmanager
async def running_world(
    folder: Path,
    examples_dsn: str,
    chance: random.Random,
    *,
    synchronous: bool,
    small_disks: bool,
    lease_s: float,
    nodes: int = NODES,
) -> AsyncIterator[World]:
    """All of it serves, and knows the example definitions. Gone afterwards."""
    async with AsyncExitStack() as stack:
        pair = Pair(folder, synchronous=synchronous, small_disks=small_disks)
        stack.push_async_callback(pair.close)
        await pair.start()
        await pair.make_standby()
        world = World(pair, chance, lease_s, examples_dsn)
        ports = [free_port() for _ in range(nodes)]
        for name in PARTICIPANTS:
            line = await stack.enter_async_context(Proxy(0).running())
            process = ParticipantProcess(name, examples_dsn, f"127.0.0.1:{ports[0]}", line, folder / f"{name}.log")
            world.participants.append(await stack.enter_async_context(process.running()))
            world.participant_lines.append(line)
        for port in ports:
            await _start_node(world, folder, port, stack)
        await world.serve()
        for node in world.nodes:
            client = Client(node.address, backoff=PATIENT, timeout_s=120)
            world.clients.append(await stack.enter_async_context(client))
        for path in definition_files():
            for definition in load_definitions(path):
                await world.clients[0].definitions.create(definition)
        stack.push_async_callback(world.shop.abandon)
        yield world


async def _start_node(world: World, folder: Path, port: int, stack: AsyncExitStack) -> None:
    peer_line = await stack.enter_async_context(Proxy(port).running())
    store_lines = [await stack.enter_async_context(Proxy(server.port).running()) for server in world.pair.servers]
    hosts = ",".join(line.address for line in store_lines)
    name = f"node-{len(world.nodes)}"
    (folder / name).mkdir()
    node = SagadProcess(
        folder / name,
        f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write",
        {one.name: one.line.address for one in world.participants},
        port,
        node={"name": name, "lease": f"{world.lease_s}s", "advertised": peer_line.address},
    )
    stack.callback(_end, node)
    node.start(wait=False)
    world.nodes.append(node)
    world.store_lines.append(store_lines)
    world.peer_lines.append(peer_line)


def _end(node: SagadProcess) -> None:
    if node.alive:
        node.kill()
