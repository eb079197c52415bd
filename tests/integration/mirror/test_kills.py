"""Relays and the broker die by SIGKILL, inside open transactions: each event is in Kafka exactly once all the same.

Six kills here, for every run of the tests; 30, with freezes and delays between them, by `make test-chaos-kafka`.
"""

from pathlib import Path
from random import Random

from support.mirror import mirrored
from support.mirror_chaos import TOPIC, mirror_world, sagas_under_way

from sagad_server.storage.postgres import PostgresStore


async def test_kills_inside_open_transactions_lose_nothing_and_repeat_nothing(
    store: PostgresStore, postgres_dsn: str, tmp_path: Path
) -> None:
    async with mirror_world(tmp_path, store, postgres_dsn, Random(1)) as world:
        async with sagas_under_way(store):
            await world.all_die()
            await world.all_die_at_an_end()
        records = await mirrored(world.bootstrap_servers, TOPIC, postgres_dsn)
    assert len(records) > 100
