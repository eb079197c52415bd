"""Three nodes under load: killed, frozen beyond their lease, and their PostgreSQL restarted. Money is conserved."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.example_participants import examples
from support.postgres import database, new_folder
from support.processes import SagadProcess, free_port, sagad_process
from support.shop import ENDED, PATIENT, Shop

from sagad.v1.saga_pb2 import SagaState
from sagad_client import Client, load_definitions
from sagad_examples import ledger
from sagad_examples.definition_files import definition_files
from sagad_server.embedded import EmbeddedPostgres

FAULTS = int(os.environ.get("SAGAD_CHAOS_KILLS", "30"))
LEASE_S = 2


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


async def disturb(kind: str, nodes: list[SagadProcess], postgres: EmbeddedPostgres, chance: random.Random) -> None:
    """One fault, and its end."""
    node = chance.choice(nodes)
    if kind == "kill":
        node.kill()
        node.start(wait=False)
    elif kind == "freeze":
        os.kill(node.pid, signal.SIGSTOP)
        await asyncio.sleep(LEASE_S * chance.uniform(1.5, 2.5))
        os.kill(node.pid, signal.SIGCONT)
    else:
        await asyncio.to_thread(postgres.stop)
        await asyncio.sleep(chance.uniform(0, 0.5))
        await asyncio.to_thread(postgres.start)


@pytest.mark.timeout(1200)
async def test_three_nodes_lose_nothing_whatever_happens_to_them(folder: Path, own_postgres: EmbeddedPostgres) -> None:
    seed = int(os.environ.get("SAGAD_CHAOS_SEED") or random.randrange(10**9))
    print(f"SAGAD_CHAOS_SEED={seed}, {FAULTS} faults", file=sys.stderr)
    chance = random.Random(seed)
    ports = [free_port() for _ in range(3)]
    with database(own_postgres.dsn) as dsn, database(own_postgres.dsn) as examples_dsn:
        async with examples(examples_dsn, sagad=f"127.0.0.1:{ports[0]}") as shops:
            with ExitStack() as stack:
                nodes = []
                for number, port in enumerate(ports):
                    (folder / str(number)).mkdir()
                    name: dict[str, object] = {"name": f"node-{number}", "lease": f"{LEASE_S}s"}
                    process = sagad_process(folder / str(number), dsn, shops.addresses, port, node=name)
                    nodes.append(stack.enter_context(process))
                clients = [Client(node.address, backoff=PATIENT, timeout_s=120) for node in nodes]
                for client in clients:
                    await client.__aenter__()
                for path in definition_files():
                    for definition in load_definitions(path):
                        await clients[0].definitions.create(definition)
                shop = Shop(clients, chance)
                orders = [asyncio.create_task(shop.order_for_ever()) for _ in range(6)]
                for _ in range(FAULTS):
                    await asyncio.sleep(chance.uniform(0.1, 1.0))
                    await disturb(
                        chance.choice(["kill", "kill", "kill", "freeze", "postgres"]), nodes, own_postgres, chance
                    )
                for task in orders:
                    task.cancel()
                await asyncio.gather(*orders, return_exceptions=True)
                for node in nodes:
                    await asyncio.to_thread(node.wait_until_serving)
                sagas = await shop.ends()
                for client in clients:
                    await client.__aexit__(None, None, None)
        assert {saga.state for saga in sagas} <= ENDED
        assert len({saga.saga_id for saga in sagas}) == len(sagas) > FAULTS
        ended = {saga.saga_id: saga.state == SagaState.SAGA_STATE_SUCCEEDED for saga in sagas}
        print(f"{len(sagas)} sagas, {sum(ended.values())} succeeded", file=sys.stderr)
        assert await ledger.check(examples_dsn, ended) == []
