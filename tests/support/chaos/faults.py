"""All kinds of fault that a world can meet. Each function strikes, lasts a while, and ends."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from support.chaos.pair import Server
from support.chaos.waiting import until
from support.chaos.world import World
from support.proxy import Proxy

SLOW_S = (0.01, 0.1)
"""What a slow line adds to each piece of data."""


@dataclass(frozen=True)
class Fault:
    """One kind."""

    name: str
    what: str
    """A sentence for people."""
    strike: Callable[[World], Awaitable[None]]


async def _kill_node(world: World) -> None:
    node = world.chance.choice(world.nodes)
    node.kill()
    node.start(wait=False)


async def _freeze_node(world: World) -> None:
    node = world.chance.choice(world.nodes)
    os.kill(node.pid, signal.SIGSTOP)
    await asyncio.sleep(world.lease_s * world.chance.uniform(1.5, 2.5))
    os.kill(node.pid, signal.SIGCONT)


async def _restart_postgres(world: World) -> None:
    server = world.pair.primary
    await server.stop()
    await asyncio.sleep(world.chance.uniform(0, 0.5))
    await server.start()


async def _fail_over(world: World) -> None:
    await world.pair.fail_over()
    await asyncio.sleep(world.chance.uniform(0, 1))
    await world.pair.make_standby()


async def _fill_disk(world: World) -> None:
    server = world.pair.primary
    assert server.disk is not None
    await server.disk.fill()
    try:
        if world.chance.random() < 0.5:
            await until(lambda: _refuses_writes(server), 30, "writes fail on a full disk")
        else:
            await until(lambda: _panics(server), 60, "PostgreSQL panics on a full disk")
        await asyncio.sleep(world.chance.uniform(0, 1))
    finally:
        await server.disk.free()
    await server.start()


async def _refuses_writes(server: Server) -> bool:
    try:
        await server.execute("CREATE TABLE no_room AS SELECT * FROM generate_series(1, 1000000)")
    except (asyncpg.DiskFullError, asyncpg.PostgresConnectionError, OSError):  # 53100, or it has panicked
        return True
    await server.execute("DROP TABLE no_room")
    return False


async def _panics(server: Server) -> bool:
    """Writes to the log alone, until there is no room for the next piece of it."""
    try:
        await server.execute("SELECT pg_logical_emit_message(true, 'no room', repeat('x', 8000000))")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # the connection broke, or was refused
        return True
    return False


async def _cut(world: World, lines: list[Proxy]) -> None:
    """For a while nothing gets through."""
    for line in lines:
        line.refuse()
    await asyncio.sleep(world.chance.uniform(0, 1.5 * world.lease_s))
    for line in lines:
        line.refuse(False)


async def _slow_down(world: World, lines: list[Proxy]) -> None:
    for line in lines:
        line.delay_s = world.chance.uniform(*SLOW_S)
    await asyncio.sleep(world.chance.uniform(1, 3))
    for line in lines:
        line.delay_s = 0.0


async def _cut_store(world: World) -> None:
    await _cut(world, world.chance.choice(world.store_lines))


async def _slow_store(world: World) -> None:
    await _slow_down(world, world.chance.choice(world.store_lines))


async def _cut_participants(world: World) -> None:
    await _cut(world, [world.chance.choice(world.participant_lines)])


async def _slow_participants(world: World) -> None:
    await _slow_down(world, world.participant_lines)


async def _cut_peers(world: World) -> None:
    await _cut(world, [world.chance.choice(world.peer_lines)])


async def _slow_peers(world: World) -> None:
    await _slow_down(world, world.peer_lines)


async def _cut_commit_answer(world: World) -> None:
    """A commit names its sagas; the line to the primary is the one over which it goes."""
    lines = world.chance.choice(world.store_lines)
    line = next(line for line in lines if line.target_port == world.pair.primary.port)
    lose = world.chance.choice([line.cut_answer_to, line.lose_answer_to])
    lose(b"o-0")
    await asyncio.wait_for(line.acted.wait(), 60)


async def _kill_participant(world: World) -> None:
    world.chance.choice(world.participants).kill()


async def _die_after_effect(world: World) -> None:
    """An order tells the participant to end without a word once the effect of its first attempt is committed."""
    participant = world.chance.choice(world.participants)
    before = participant.deaths
    loop = asyncio.get_running_loop()
    ask_again_at = 0.0

    async def died() -> bool:
        nonlocal ask_again_at
        if loop.time() >= ask_again_at:  # the order before was called back, or its first attempt met another fault
            world.shop.next_faults.append(f"{participant.name}=die:1")
            ask_again_at = loop.time() + 3
        return participant.deaths > before

    await until(died, 60, f"{participant.name} dies between effect and answer")


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("node killed", "A node gets SIGKILL and is started again at once.", _kill_node),
        Fault(
            "node frozen",
            "A node is stopped (SIGSTOP) for longer than its lease, so that others take its sagas over, and wakes up.",
            _freeze_node,
        ),
        Fault("PostgreSQL restarted", "The server ends all its connections, and is started again.", _restart_postgres),
        Fault(
            "PostgreSQL failed over",
            "All processes of the primary get SIGKILL and stay dead; the synchronous standby is promoted.",
            _fail_over,
        ),
        Fault(
            "disk full",
            "PostgreSQL's disk fills up until writes fail (53100) or the server panics; later there is room again.",
            _fill_disk,
        ),
        Fault(
            "line to PostgreSQL cut",
            "All connections of a node to its database break, and new ones do for a while, maybe beyond its lease.",
            _cut_store,
        ),
        Fault("line to PostgreSQL slow", "Each piece of data to and from a node's database is held up.", _slow_store),
        Fault(
            "commit answer lost",
            "A commit reaches PostgreSQL; its answer is lost, and the connection breaks or falls silent.",
            _cut_commit_answer,
        ),
        Fault("participant killed", "A participant gets SIGKILL and is started again.", _kill_participant),
        Fault(
            "participant dies after its effect",
            "A participant ends between the commit of an effect and its answer, and is started again.",
            _die_after_effect,
        ),
        Fault("line to a participant cut", "No node reaches a participant for a while.", _cut_participants),
        Fault("lines to participants slow", "Each piece of data to and from them is held up.", _slow_participants),
        Fault("line between nodes cut", "For a while no other node reaches a node.", _cut_peers),
        Fault("lines between nodes slow", "Each piece of data between nodes is held up.", _slow_peers),
    )
}
"""By name."""
