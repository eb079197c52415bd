"""What a lock costs a saga: where nobody wants it as well, and where many do."""

from collections import defaultdict

from bench.database import postmaster_pid
from bench.measure import Figures, measure
from bench.modes import Mode
from bench.report import medians
from bench.subjects import sagad

CLIENTS = 64
RESOURCES = {"none": 0, "free": 10**9, "one of 64": 64}
"""How many there are to choose one from by chance."""


async def locks(dsn: str, rounds: int, seconds: float) -> list[dict[str, float | str]]:
    """The medians of alternating rounds: sagas without a lock, with one that is free, and with one that others want."""
    postmaster = await postmaster_pid(dsn)
    figures: dict[str, list[Figures]] = defaultdict(list)
    for number in range(1, rounds + 1):
        for name, resources in RESOURCES.items():
            mode = Mode(CLIENTS, sessions=True, resources=resources)
            measured = await measure(sagad, mode, seconds, dsn, postmaster)
            print(f"lock {name}, round {number}: {measured.per_s:,.0f}/s", flush=True)
            figures[name].append(measured)
    return [_row(name, medians(measured)) for name, measured in figures.items()]


def _row(name: str, measured: Figures) -> dict[str, float | str]:
    return {
        "lock": name,
        "sagas_per_s": measured.per_s,
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "coordinator_us": measured.coordinator_cpu_us,
        "postgresql_us": measured.postgres_cpu_us,
        "commits_per_saga": measured.commits_per_saga,
    }
