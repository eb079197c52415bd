"""kill -9 of sagad at random moments under load: money is conserved, and nothing is lost."""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.chaos.judging import judge
from support.example_participants import examples
from support.postgres import database, new_folder
from support.processes import free_port, sagad_process
from support.shop import PATIENT, Shop

from sagad_client import Client, load_definitions
from sagad_examples.definition_files import definition_files

KILLS = int(os.environ.get("SAGAD_CHAOS_KILLS", "50"))
CLIENTS = 8


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


@pytest.mark.timeout(1200)
async def test_kill_9_at_random_moments_loses_nothing(
    folder: Path, postgres_server_dsn: str, say: Callable[[str], None]
) -> None:
    seed = int(os.environ.get("SAGAD_CHAOS_SEED") or random.randrange(10**9))
    say(f"SAGAD_CHAOS_SEED={seed}, {KILLS} kills")
    chance = random.Random(seed)
    with database(postgres_server_dsn) as dsn, database(postgres_server_dsn) as examples_dsn:
        port = free_port()
        async with examples(examples_dsn, sagad=f"127.0.0.1:{port}") as shops:
            with sagad_process(folder, dsn, shops.addresses, port) as sagad:
                async with Client(sagad.address, backoff=PATIENT, timeout_s=120) as client:
                    for path in definition_files():
                        for definition in load_definitions(path):
                            await client.definitions.create(definition)
                    shop = Shop([client], chance)
                    shop.open(CLIENTS)
                    for _ in range(KILLS):
                        await asyncio.sleep(chance.uniform(0.0, 1.2))
                        sagad.kill()
                        sagad.start(wait=chance.random() < 0.8)  # the others die while they start
                    await shop.close()
                    if not sagad.serving():
                        await asyncio.to_thread(sagad.wait_until_serving)
                    verdict = await judge(await shop.ends(), shop.acknowledged, examples_dsn)
        assert verdict.lost == set()
        assert verdict.violations == []
        assert len(verdict.sagas) > KILLS
