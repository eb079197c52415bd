"""Relays and the broker die by SIGKILL, inside open transactions: each event is in Kafka exactly once all the same."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.kafka import kafka_broker
from support.mirror import MirrorProcess, mirrored, write_sagas
from support.processes import free_port
from support.proxy import Proxy

from sagad_server.storage.postgres import PostgresStore

TOPIC = "saga-events"
PLACE = b'"start_id"'
"""In the last record that a transaction writes before its commit."""


@asynccontextmanager
async def sagas_under_way(store: PostgresStore) -> AsyncIterator[None]:
    """Writes sagas until the end."""
    over = asyncio.Event()

    async def write() -> None:
        for round_number in itertools.count():
            if over.is_set():
                return
            await write_sagas(store, [f"saga-{round_number}-{number}" for number in range(10)], 3, {})
            await asyncio.sleep(0.02)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        over.set()
        await task


async def in_open_transaction(proxy: Proxy) -> None:
    """Returns when a relay has written all of a transaction, and does not know it yet: it is still open."""
    async with asyncio.timeout(60):
        proxy.lose_answer_to(PLACE)
        await proxy.acted.wait()


async def test_kills_inside_open_transactions_lose_nothing_and_repeat_nothing(
    store: PostgresStore, postgres_dsn: str, tmp_path: Path
) -> None:
    port = free_port()
    async with Proxy(port).running() as proxy:
        with kafka_broker(port, proxy.port) as broker:
            servers = f"127.0.0.1:{proxy.port}"
            relays = [MirrorProcess(tmp_path, postgres_dsn, servers, TOPIC, name) for name in ("one", "two")]
            try:
                async with sagas_under_way(store):
                    await in_open_transaction(proxy)
                    for relay in relays:
                        relay.kill()
                        relay.start()
                    await in_open_transaction(proxy)
                    await asyncio.to_thread(broker.kill)
                    await asyncio.to_thread(broker.start)
                    await in_open_transaction(proxy)
                    relays[0].kill()  # for good: the other one takes its lanes
                records = await mirrored(servers, TOPIC, postgres_dsn)
            finally:
                relays[0].kill()
                code = await asyncio.to_thread(relays[1].terminate)
            assert len(records) > 100
            assert code == 0, relays[1].log()[-3000:]
