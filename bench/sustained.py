"""Sustained load: whether sagas get slower, or the coordinator larger, over minutes."""

from bench.database import fresh_database
from bench.measure import load
from bench.modes import Mode
from bench.processes import rss_mib
from bench.subjects import sagad

SLICE_S = 10.0


async def sustained(dsn: str, mode: Mode, minutes: float) -> list[dict[str, float | str]]:
    """A row for every ten seconds of load."""
    rows: list[dict[str, float | str]] = []
    async with fresh_database(dsn) as database, sagad(database, mode) as running:
        while len(rows) * SLICE_S < minutes * 60:
            ended = await load(running, mode, SLICE_S)
            rss = rss_mib(running.coordinator_pid)
            rows.append({"until_s": (len(rows) + 1) * SLICE_S, **ended, "rss_mib": rss})
    return rows
