"""The mirror: how fast it catches up on one core, how late events are, and what it costs the coordinator.

`python -m bench.mirror --kafka HOST:PORT`, with a Kafka that runs on this machine.
"""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import asyncpg
import grpc.aio
import uvloop
import yaml
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from cyclopts import App, Parameter, validators

from bench.database import fresh_database, postgres
from bench.load import Sagad
from bench.measure import load
from bench.modes import MODES
from bench.processes import SAGAD, cpu_s, free_port, running
from bench.subjects import Running, sagad
from sagad.v1 import saga_pb2

LATE_S = 120.0
_COPY = """
WITH sagas AS (
    INSERT INTO sagad.saga
    SELECT (jsonb_populate_record(s, jsonb_build_object('saga_id', s.saga_id || '-' || n, 'uid', gen_random_uuid()))).*
    FROM sagad.saga AS s, generate_series(1, $1) AS n
)
INSERT INTO sagad.event
    (batch_id, revision, time, cause, relay_partition, namespace, saga_id, body, payload, category, parking_mask)
SELECT
    e.batch_id, e.revision, e.time, e.cause,
    get_byte(sha256(convert_to(e.namespace, 'UTF8') || '\\x00' || convert_to(e.saga_id || '-' || n, 'UTF8')), 7) % 64,
    e.namespace, e.saga_id || '-' || n, e.body, e.payload, e.category, e.parking_mask
FROM sagad.event AS e, generate_series(1, $1) AS n
ORDER BY n, e.position
"""

app = App(name="mirror", help="Measures the mirror.")


@asynccontextmanager
async def mirror(dsn: str, kafka: str, topic: str) -> AsyncIterator[int]:
    """Runs `sagad mirror`; yields its process id."""
    with tempfile.TemporaryDirectory(prefix="sagad-bench-") as folder:
        config = {
            "http": {"address": f"127.0.0.1:{free_port()}"},
            "postgres": {"dsn": dsn},
            "node": {"name": "mirror"},
            "kafka": {"bootstrap_servers": kafka},
            "mirror": {"topic": topic},
        }
        Path(folder, "mirror.yaml").write_text(yaml.safe_dump(config))
        with Path(folder, "log").open("wb") as log:
            async with running(SAGAD, "mirror", "--config", f"{folder}/mirror.yaml", log=log) as process:
                yield process.pid


@asynccontextmanager
async def consumer(kafka: str, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Of the whole topic, which is awaited and deleted afterwards."""
    reader = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        async with asyncio.timeout(LATE_S):
            while topic not in await admin.list_topics():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.2)
        await reader.start()
        yield reader
    finally:
        await reader.stop()
        await admin.delete_topics([topic, f"{topic}-cursors"])
        await admin.close()


async def catch_up(server: Running, dsn: str, kafka: str, events: int) -> None:
    """Fills the journal, and lets a mirror relay it from its beginning."""
    await load(server, MODES["unary-64"], 3)
    connection = await asyncpg.connect(dsn)
    try:
        few = await connection.fetchval("SELECT count(*) FROM sagad.event")
        await connection.execute(_COPY, max(1, events // few), timeout=600)
        events = await connection.fetchval("SELECT count(*) FROM sagad.event")
        await connection.execute("ANALYZE sagad.event, sagad.saga")
    finally:
        await connection.close()
    topic = f"bench-{uuid4().hex}"
    async with mirror(dsn, kafka, topic) as pid, consumer(kafka, topic) as reader:
        seen, began_s, cpu_began_s = 0, time.monotonic(), cpu_s(pid)
        while seen < events:
            async with asyncio.timeout(LATE_S):
                seen += sum(map(len, (await reader.getmany(timeout_ms=100)).values()))
        took_s, cpu = time.monotonic() - began_s, cpu_s(pid)
    print(f"catching up: {events:,} events in {took_s:.1f} s, {events / took_s:,.0f} a second")
    print(f"  CPU of the mirror: {(cpu - cpu_began_s) / events * 1e6:.1f} us an event")


async def lags(server: Running, dsn: str, kafka: str, sagas_per_s: int, seconds: float) -> None:
    """Starts sagas at a steady rate; the lag runs from an event's commit, by its own time, to a consumer."""
    topic, found = f"bench-{uuid4().hex}", list[float]()
    async with mirror(dsn, kafka, topic), consumer(kafka, topic) as reader:
        await _drained(reader)

        async def read() -> None:
            while True:
                record = await reader.getone()
                found.append(time.time() - record.timestamp / 1000)

        reading = asyncio.create_task(read())
        took_s = await _steady(server.port, sagas_per_s, seconds)
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    found.sort()
    print(
        f"lag at {sagas_per_s * seconds / took_s:.0f} sagas/s: median {statistics.median(found) * 1000:.0f} ms", end=""
    )
    print(f", p99 {found[int(len(found) * 0.99)] * 1000:.0f} ms, {len(found):,} events")


async def _drained(reader: AIOKafkaConsumer) -> None:
    """Returns when nothing has come for a while."""
    while await reader.getmany(timeout_ms=2000):
        pass


async def _steady(port: int, sagas_per_s: int, seconds: float) -> float:
    """Returns how long it took: longer than `seconds` where the machine does not keep up."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        start = Sagad(channel, "bench", saga_pb2.SAGA_STATE_SUCCEEDED, watchers=0).start
        began_s, run, numbers = time.monotonic(), uuid4().hex, itertools.count()

        async def one(number: int) -> None:
            await start(f"{run}-{number}")

        async with asyncio.TaskGroup() as group:
            for number in itertools.takewhile(lambda number: number < sagas_per_s * seconds, numbers):
                await asyncio.sleep(max(0.0, began_s + number / sagas_per_s - time.monotonic()))
                group.create_task(one(number))
        return time.monotonic() - began_s


async def cost(server: Running, dsn: str, kafka: str, rounds: int, seconds: float) -> None:
    """The coordinator's CPU a saga, with a mirror beside it and without, in turns."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    topic = f"bench-{uuid4().hex}"
    for _ in range(rounds):
        spent[False].append(await _cpu_us(server, seconds))
        async with mirror(dsn, kafka, topic):
            spent[True].append(await _cpu_us(server, seconds))
    without, beside = statistics.median(spent[False]), statistics.median(spent[True])
    print(f"CPU of the coordinator a saga: {without:.0f} us, with `sagad mirror` apart {beside:.0f} us", end="")
    print(f" ({beside / without - 1:+.1%})")


async def _cpu_us(server: Running, seconds: float) -> float:
    before = cpu_s(server.coordinator_pid)
    ended = await load(server, MODES["unary-64"], seconds)
    return (cpu_s(server.coordinator_pid) - before) / ended["sagas"] * 1e6


async def measure_all(kafka: str, events: int, rounds: int, seconds: float) -> None:
    with postgres(None) as postgres_dsn:
        async with fresh_database(postgres_dsn) as dsn, sagad(dsn, MODES["unary-64"]) as server:
            await cost(server, dsn, kafka, rounds, seconds)
        async with fresh_database(postgres_dsn) as dsn, sagad(dsn, MODES["unary-64"]) as server:
            await lags(server, dsn, kafka, 500, seconds)
        async with fresh_database(postgres_dsn) as dsn, sagad(dsn, MODES["unary-64"]) as server:
            await catch_up(server, dsn, kafka, events)


@app.default
def bench(
    *,
    kafka: str,
    events: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 200_000,
    rounds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 3,
    seconds: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 8,
) -> None:
    """Prints three figures.

    Parameters
    ----------
    kafka
        HOST:PORT of a Kafka on this machine.
    events
        Of the journal that is caught up on.
    rounds
        Of the coordinator's cost; medians of fewer than three say little.
    seconds
        Length of a run.
    """
    uvloop.run(measure_all(kafka, events, rounds, seconds))


if __name__ == "__main__":
    app()
