"""The proof of the mirror, by `make test-chaos-kafka`: an independent consumer finds each event of the journal exactly
once, and each saga's in order, whatever has died, frozen or come late meanwhile."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from support.mirror import mirrored
from support.mirror_chaos import TOPIC, mirror_world, sagas_under_way
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
async def test_each_event_is_in_kafka_exactly_once_and_each_sagas_in_order_whatever_dies_freezes_or_comes_late(
    store: PostgresStore, postgres_dsn: str, tmp_path: Path
) -> None:
    async with mirror_world(tmp_path, store, postgres_dsn, Random(SEED)) as world:
        async with sagas_under_way(store):
            for number, fault in enumerate(world.plan(KILLS), 1):
                print(f"{number}: {fault.__name__}", flush=True)
                await fault()
        records = await mirrored(world.bootstrap_servers, TOPIC, postgres_dsn, timeout_s=120)
    print(f"{len(records)} events, seed {SEED}")
    assert len(records) > 100 * KILLS
