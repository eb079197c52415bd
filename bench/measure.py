"""One run: a load on a running subject, and what it cost."""

import json
from dataclasses import dataclass

from bench.database import fresh_database
from bench.modes import Mode
from bench.processes import PYTHON, cpu_s, output_of, tree_cpu_s
from bench.subjects import Running, Subject

WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run; the CPU times are microseconds a saga."""

    per_s: float
    p50_ms: float
    p99_ms: float
    coordinator_cpu_us: float
    postgres_cpu_us: float
    participant_cpu_us: float
    commits_per_saga: float


async def measure(subject: Subject, mode: Mode, seconds: float, dsn: str, postmaster: int) -> Figures:
    """Starts the subject on a fresh database, warms it up, and loads it for `seconds`."""
    async with fresh_database(dsn) as database, subject(database, mode) as running:
        await load(running, mode, WARM_UP_S)
        before = await _spent(running, postmaster)
        ended = await load(running, mode, seconds)
        after = await _spent(running, postmaster)
    coordinator, postgres, participant, commits = (
        (end - start) / ended["sagas"] for start, end in zip(before, after, strict=True)
    )
    return Figures(
        per_s=ended["per_s"],
        p50_ms=ended["p50_ms"],
        p99_ms=ended["p99_ms"],
        coordinator_cpu_us=coordinator * 1e6,
        postgres_cpu_us=postgres * 1e6,
        participant_cpu_us=participant * 1e6,
        commits_per_saga=commits,
    )


async def load(running: Running, mode: Mode, seconds: float) -> dict[str, float]:
    options = ["--port", str(running.port), "--seconds", str(seconds), *mode.options()]
    ended: dict[str, float] = json.loads(await output_of(PYTHON, "-m", "bench.load", running.name, *options))
    return ended


async def _spent(running: Running, postmaster: int) -> tuple[float, float, float, int]:
    commits = await running.commits()
    return tree_cpu_s(running.coordinator_pid), tree_cpu_s(postmaster), cpu_s(running.participant_pid), commits
