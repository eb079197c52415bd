"""Sleepers: what sagas cost that wait for days, and how late they wake."""

import asyncio
import time
from datetime import datetime, timedelta

import asyncpg

from bench.backlog import Connection, start_all, until_none
from bench.database import fresh_database
from bench.measure import load
from bench.modes import Mode
from bench.processes import cpu_s, rss_mib
from bench.subjects import sagad

AWAKE = Mode(clients=64)
CHUNK = 50_000
FAR = timedelta(days=1)
SOON = timedelta(seconds=5)
WITHIN_S = 600.0

# Copies of one saga that sagad itself has put to sleep, moved in time so that the n-th is due at $2 + n * $3.
COPY = """
WITH copied AS (
    SELECT $1 || lpad(n::text, 12, '0') AS copy, $2::timestamptz + n * $3::interval - s.wake_at AS later, s.*
    FROM sagad.saga AS s, generate_series($4::bigint, $5::bigint - 1) AS n
    WHERE s.saga_id = 'template'
),
slept AS (
    INSERT INTO sagad.saga (
        uid, revision, epoch, create_time, update_time, parking_mask, state, category, wake_at, namespace, saga_id,
        definition_id, version, labels, request_hash, body
    )
    SELECT
        gen_random_uuid(), revision, epoch, create_time + later, update_time + later, parking_mask, state, category,
        wake_at + later, namespace, copy, definition_id, version, labels, request_hash, body
    FROM copied
)
INSERT INTO sagad.event (
    batch_id, revision, time, cause, relay_partition, namespace, saga_id, body, payload, category, parking_mask
)
SELECT
    e.batch_id, e.revision, e.time + c.later, e.cause,
    get_byte(sha256(e.namespace::bytea || '\\x00'::bytea || c.copy::bytea), 7) & 63,
    e.namespace, c.copy, e.body, e.payload, e.category, e.parking_mask
FROM copied AS c JOIN sagad.event AS e ON e.saga_id = 'template'
"""

LATE = """
WITH woken AS (
    SELECT end_time, end_time - ($2::timestamptz + row_number() OVER (ORDER BY saga_id) * $3::interval - $3) AS late
    FROM sagad.saga WHERE starts_with(saga_id, $1)
)
SELECT
    count(*) / extract(epoch FROM max(end_time) - $2)::float8 AS woken_per_s,
    extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY late))::float8 * 1e3 AS late_p50_ms,
    extract(epoch FROM percentile_disc(0.99) WITHIN GROUP (ORDER BY late))::float8 * 1e3 AS late_p99_ms
FROM woken
"""


async def copy(connection: Connection, prefix: str, count: int, due: datetime, apart: timedelta) -> None:
    for first in range(0, count, CHUNK):
        await connection.execute(COPY, prefix, due, apart, first, min(first + CHUNK, count))


async def wake(connection: Connection, prefix: str, count: int, apart: timedelta) -> dict[str, float]:
    """Has so many more wake soon, and tells how late they have ended."""
    due = await connection.fetchval("SELECT now() + $1::interval", SOON)
    await copy(connection, prefix, count, due, apart)
    await until_none(connection, f"starts_with(saga_id, '{prefix}') AND state IN (1, 2)", WITHIN_S)
    late = await connection.fetchrow(LATE, prefix, due, apart)
    assert late is not None
    return {f"{prefix}{name}": value for name, value in late.items()}


async def sleepers(dsn: str, sagas: int, woken: int, per_s: float, seconds: float) -> dict[str, float | str]:
    """The coordinator beside so many sleepers; `woken` more are due at `per_s`, and as many at the same instant."""
    async with fresh_database(dsn) as database, sagad(database, AWAKE) as running:
        pid = running.coordinator_pid
        without = await load(running, AWAKE, seconds)
        before_mib = rss_mib(pid)
        await start_all(running.port, "bench-asleep", ["template"])
        connection = await asyncpg.connect(database)
        try:
            await until_none(connection, "saga_id = 'template' AND wake_at IS NULL", WITHIN_S)
            await copy(connection, "asleep_", sagas, await connection.fetchval("SELECT now()") + FAR, timedelta(0))
            await connection.execute("VACUUM (ANALYZE) sagad.saga, sagad.event")
            cpu_before_s, since_s = cpu_s(pid), time.monotonic()
            await asyncio.sleep(seconds)
            cpu = (cpu_s(pid) - cpu_before_s) / (time.monotonic() - since_s)
            after_mib = rss_mib(pid)
            beside = await load(running, AWAKE, seconds)
            paced = await wake(connection, "paced_", woken, timedelta(seconds=1 / per_s))
            burst = await wake(connection, "burst_", woken, timedelta(0))
        finally:
            await connection.close()
    return {
        "asleep": sagas,
        "rss_mib_without": before_mib,
        "rss_mib": after_mib,
        "idle_cpu_percent": cpu * 100,
        "per_s_without": without["per_s"],
        "per_s": beside["per_s"],
        **paced,
        **burst,
    }
