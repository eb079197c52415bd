"""The proof of the read model, by `make test-chaos-kafka`: it is what the journal is, whatever has died meanwhile."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from support.mirror import journal, mirrored
from support.mirror_chaos import TOPIC, mirror_world, sagas_under_way
from support.projection import ProjectProcess, documents
from support.storage import definition

from sagad_server.storage.postgres import PostgresSettings, PostgresStore

KILLS = int(os.environ.get("SAGAD_CHAOS_KILLS", "30"))
SEED = int(os.environ.get("SAGAD_CHAOS_SEED", "1"))
TIMEOUT_S = 120 + 60 * KILLS


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(PostgresSettings(dsn=postgres_dsn, pool_max_size=4))
    await store.open("node")
    await store.create_definition(definition(), 1_000, 10_000)
    yield store
    await store.close()


@pytest.mark.timeout(TIMEOUT_S)
async def test_the_model_has_each_saga_in_its_last_revision_whatever_dies(
    store: PostgresStore, postgres_dsn: str, tmp_path: Path, mongo_url: str
) -> None:
    random, database = Random(SEED), f"test-{uuid4().hex}"
    async with mirror_world(tmp_path, store, postgres_dsn, random) as world:
        names = ("left", "right")
        servers = world.bootstrap_servers, TOPIC, mongo_url, database
        projections = [ProjectProcess(tmp_path, *servers, node_name=name) for name in names]
        try:
            async with sagas_under_way(store):
                for number in range(1, KILLS + 1):
                    await asyncio.sleep(random.uniform(0, 1))
                    victim = random.choice(projections)
                    victim.kill()
                    if number % 6 == 0:
                        await world.broker_dies()
                    victim.start()
            await mirrored(world.bootstrap_servers, TOPIC, postgres_dsn, timeout_s=120)
            wanted = Counter((namespace, saga_id) for namespace, saga_id, _ in await journal(postgres_dsn))
            model: Counter[tuple[str, str]] = Counter()
            while model != wanted:
                assert all(each.child.poll() is None for each in projections)
                await asyncio.sleep(0.5)
                found = (await documents(mongo_url, database)).values()
                model = Counter({(each["namespace"], each["saga_id"]): each["revision"] for each in found})
                assert all(each["complete"] for each in found)
        finally:
            for projection in projections:
                projection.kill()
    print(f"{sum(wanted.values())} events of {len(wanted)} sagas, seed {SEED}")
