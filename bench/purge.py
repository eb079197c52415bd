"""Purge: what it costs the sagas that run beside it, and whether it keeps up with them."""

import time
from collections.abc import Mapping
from statistics import median

import asyncpg

from bench.database import fresh_database
from bench.fill import fill
from bench.measure import WARM_UP_S, load
from bench.modes import Mode
from bench.subjects import NO_SETTINGS, sagad

MODE = Mode(clients=64, sessions=True)
PURGING = {"retention": "0s", "cleanup_interval": "1s"}
PURGED = "SELECT count(*) FROM sagad.saga WHERE purge_time IS NOT NULL"


async def purge(dsn: str, sagas: int, rounds: int, seconds: float) -> dict[str, float | str]:
    """Medians of alternating rounds without and with a purge of all that has ended, `sagas` of it before the first."""
    async with fresh_database(dsn) as database:
        async with sagad(database, MODE) as running:
            await fill(database, running.port, sagas)
        return await alternate(database, rounds, seconds)


async def alternate(database: str, rounds: int, seconds: float) -> dict[str, float | str]:
    without, beside = [], []
    for number in range(1, rounds + 1):
        without.append(await loaded(database, NO_SETTINGS, seconds))
        beside.append(await loaded(database, PURGING, seconds))
        per_s, purged_per_s = beside[-1]["per_s"], beside[-1]["purged_per_s"]
        print(f"round {number}: {without[-1]['per_s']:,.0f}/s, {per_s:,.0f}/s beside {purged_per_s:,.0f}/s", flush=True)
    figures = {
        f"{name}{suffix}": median(each[name] for each in measured)
        for name in ("per_s", "p50_ms", "p99_ms")
        for suffix, measured in (("_without", without), ("", beside))
    }
    ratio = median(b["per_s"] / w["per_s"] for w, b in zip(without, beside, strict=True))
    return {**figures, "ratio": ratio, "purged_per_s": median(each["purged_per_s"] for each in beside)}


async def loaded(database: str, service: Mapping[str, str], seconds: float) -> dict[str, float]:
    async with sagad(database, MODE, service) as running:
        await load(running, MODE, WARM_UP_S)
        connection = await asyncpg.connect(database)
        try:
            before, since_s = await connection.fetchval(PURGED), time.monotonic()
            ended = await load(running, MODE, seconds)
            purged_per_s = (await connection.fetchval(PURGED) - before) / (time.monotonic() - since_s)
        finally:
            await connection.close()
    return {**ended, "purged_per_s": purged_per_s}
