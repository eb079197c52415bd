"""PostgreSQL fails over to an asynchronous standby that is behind: what was lost is counted, and the rest goes on."""

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.chaos.judging import Verdict, judge
from support.chaos.report import Row, report
from support.chaos.world import World, running_world
from support.example_participants import order
from support.postgres import database, new_folder
from support.proxy import Proxy
from support.shop import MOVING

from sagad.v1.admin_service_pb2 import Replication
from sagad.v1.saga_pb2 import Saga, SagaState
from sagad_client import Client

CLIENTS = 6
LEASE_S = 2
BEHIND_S = 2.0
ORDER = re.compile(r"order (\S+):")
WHAT = (
    f"The standby hears nothing for {BEHIND_S:g} s, in which a node is killed and started again; then the primary gets "
    "SIGKILL and stays dead, and the standby is promoted as it is."
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


@dataclass
class Orders:
    """Orders without end, each of which is remembered once it is acknowledged."""

    clients: list[Client]
    chance: random.Random
    acknowledged: list[str] = field(default_factory=list)
    stopped: bool = False

    async def place_until_stopped(self, name: str) -> None:
        number = 0
        while not self.stopped:
            number += 1
            await self.place(f"{name}-{number:05d}")

    async def place(self, order_id: str) -> Saga:
        client = self.chance.choice(self.clients)
        fault = {"example-fault": "payment=refuse"} if order_id[-1] in "37" else {}
        saga = await client.start("order", order(order_id), saga_id=order_id, labels=fault)
        self.acknowledged.append(order_id)
        return saga


async def follow_through(world: World, line: Proxy) -> None:
    """The standby follows by this line from now on."""
    await world.pair.standby.stop()
    await world.pair.make_standby(f"postgresql://postgres@{line.address}/postgres")


async def lose_the_last_moments(world: World, line: Proxy) -> None:
    """What is committed from here on until the standby takes over is lost."""
    line.blackhole()
    node = world.chance.choice(world.nodes)
    node.kill()
    node.start(wait=False)
    await asyncio.sleep(BEHIND_S)
    await world.pair.fail_over()


def orders_that_differ(verdict: Verdict) -> set[str]:
    """Orders that are neither wholly done nor wholly undone as their saga says. Anything else must not be wrong."""
    found = [ORDER.match(violation) for violation in verdict.violations]
    assert all(found), verdict.violations
    assert not [violation for violation in verdict.violations if "key" in violation]
    return {match[1] for match in found if match}


@pytest.mark.timeout(600)
async def test_an_asynchronous_standby_loses_its_last_moments_alone_and_everything_else_goes_on(
    folder: Path, postgres_server_dsn: str, say: Callable[[str], None]
) -> None:
    seed = int(os.environ.get("SAGAD_CHAOS_SEED") or random.randrange(10**9))
    say(f"SAGAD_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    with database(postgres_server_dsn) as examples_dsn:
        async with running_world(
            folder, examples_dsn, chance, synchronous=False, small_disks=False, lease_s=LEASE_S
        ) as world:
            async with Proxy(world.pair.primary.port).running() as line:
                await follow_through(world, line)
                assert (await world.clients[0].admin.server_info()).replication == Replication.REPLICATION_ASYNCHRONOUS
                orders = Orders(world.clients, chance)
                placing = [asyncio.create_task(orders.place_until_stopped(f"o{n}")) for n in range(CLIENTS)]
                await asyncio.sleep(1.5)
                safe = set(orders.acknowledged)
                in_danger = {saga.saga_id async for saga in world.clients[0].list(MOVING, page_size=1000)}
                await lose_the_last_moments(world, line)
            failed_over = datetime.now(UTC)
            await asyncio.sleep(1.5)
            orders.stopped = True
            await asyncio.gather(*placing)
            await world.serve()
            verdict = await judge(await world.shop.ends(), orders.acknowledged, examples_dsn)
            assert not verdict.lost & safe, "what the standby had is not lost"
            differ = orders_that_differ(verdict)
            assert not differ & (safe - in_danger), "what had ended before the standby fell behind stays as it was"

            lost = sorted(verdict.lost)
            for saga_id in lost:
                await orders.place(saga_id)
            again = {saga.saga_id: saga for saga in await world.shop.ends()}
    states = Counter(SagaState.Name(again[saga_id].state) for saga_id in lost)
    loss = f"{len(lost)} acknowledged sagas; {len(differ - verdict.lost)} others end otherwise than their effects"
    say(
        f"{len(orders.acknowledged) - len(lost)} acknowledged, lost: {loss}; all had ended "
        f"{verdict.until_ended_s(failed_over):.1f} s after; repeated: {dict(states)}"
    )
    row = Row(
        "failed over to an asynchronous standby",
        WHAT,
        1,
        len(verdict.sagas),
        loss,
        [verdict.until_ended_s(failed_over)],
    )
    report([row])
    assert lost, "the standby was behind, so that this test shows what is lost"
