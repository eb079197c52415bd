"""Three nodes under load, of which one or two at a time get SIGKILL, again and again. Nothing is lost."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.chaos.judging import judge
from support.chaos.nodes import all_serve, running_nodes, serving
from support.chaos.report import Row, lost_of, report
from support.example_participants import examples
from support.postgres import database, new_folder
from support.processes import SagadProcess, free_port
from support.shop import PATIENT, Shop

from sagad.v1.saga_pb2 import SagaState
from sagad_client import Client, load_definitions
from sagad_examples.definition_files import definition_files

KILLS = int(os.environ.get("SAGAD_CHAOS_NODE_KILLS", "20"))
NODES = 3
LEASE_S = 2
CLIENTS = 4
TWO_AT_ONCE = 0.2
BEFORE_IT_SERVES = 0.3
WHAT = (
    f"Of {NODES} nodes one or two at a time get SIGKILL, serving or still starting, and are started again at once; "
    f"another one serves. The lease is {LEASE_S} s."
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


class Killer:
    """Kills nodes, and starts them again."""

    def __init__(self, nodes: list[SagadProcess], chance: random.Random) -> None:
        self.deaths: list[datetime] = []
        self.of_serving = 0
        """How many of them served; the others were starting."""
        self._nodes = nodes
        self._chance = chance

    async def strike(self) -> None:
        """Kills one or two, if that leaves one that serves. None ends by itself."""
        for node in self._nodes:
            assert node.alive, f"sagad has ended:\n{node.log()[-3000:]}"
        lucky = await serving(self._nodes)
        if not lucky:
            return
        self._chance.shuffle(lucky)
        spared, *victims = lucky
        if not victims and self._chance.random() < BEFORE_IT_SERVES:
            victims = [node for node in self._nodes if node is not spared]
        for node in victims[: 2 if self._chance.random() < TWO_AT_ONCE else 1]:
            node.kill()
            self.deaths.append(datetime.now(UTC))
            self.of_serving += node in lucky
            node.start(wait=False)


@pytest.mark.timeout(3600)
async def test_nothing_is_lost_however_often_nodes_are_killed(
    folder: Path, postgres_server_dsn: str, say: Callable[[str], None]
) -> None:
    seed = int(os.environ.get("SAGAD_CHAOS_SEED") or random.randrange(10**9))
    say(f"SAGAD_CHAOS_SEED={seed}, {KILLS} kills of nodes")
    chance = random.Random(seed)
    ports = [free_port() for _ in range(NODES)]
    everywhere = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    with database(postgres_server_dsn) as dsn, database(postgres_server_dsn) as examples_dsn:
        async with (
            examples(examples_dsn, sagad=everywhere) as shops,
            running_nodes(folder, dsn, shops.addresses, ports, lease_s=LEASE_S) as nodes,
            Client(everywhere, backoff=PATIENT, timeout_s=120) as client,
        ):
            for path in definition_files():
                for definition in load_definitions(path):
                    await client.definitions.create(definition)
            shop = Shop([client], chance)
            killer = Killer(nodes, chance)
            began = datetime.now(UTC)
            shop.open(CLIENTS)
            while len(killer.deaths) < KILLS:
                await asyncio.sleep(chance.uniform(0.1, 0.9))
                await killer.strike()
            await shop.close()
            ended = datetime.now(UTC)
            await all_serve(nodes)
            verdict = await judge(await shop.ends(), shop.acknowledged, examples_dsn)
    lasted_s = (ended - began).total_seconds()
    states = Counter(SagaState.Name(saga.state) for saga in verdict.sagas)
    say(
        f"{len(killer.deaths)} kills ({killer.of_serving} of nodes that served) in {lasted_s:.0f} s, "
        f"{len(shop.acknowledged)} sagas acknowledged ({len(shop.acknowledged) / lasted_s:.0f}/s), {dict(states)}, "
        f"lost {len(verdict.lost)}, violations {len(verdict.violations)}, "
        f"all had ended {verdict.until_ended_s(killer.deaths[-1]):.1f} s after the last kill"
    )
    waits_s = [verdict.until_ended_s(death) for death in killer.deaths]
    report([Row("nodes killed all the time", WHAT, len(killer.deaths), len(verdict.sagas), lost_of(verdict), waits_s)])
    assert verdict.lost == set()
    assert verdict.violations == []
    assert len(verdict.sagas) > KILLS
