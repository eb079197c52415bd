"""The command line of the bench."""

import asyncio
from collections import defaultdict
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from bench import subjects
from bench.database import postgres, postmaster_pid
from bench.locks import locks
from bench.measure import Figures, measure
from bench.modes import MODES
from bench.profile import profile
from bench.purge import purge
from bench.recovery import recovery
from bench.report import columns, compare, print_rows, print_table, write_json
from bench.size import size
from bench.sleepers import sleepers
from bench.sustained import sustained
from bench.watch import watch

app = App(name="bench", help="Measures sagad beside the barest durable write path, in alternating runs.")

SUBJECTS = {"floor": subjects.floor, "sagad": subjects.sagad}


async def compare_modes(modes: list[str], rounds: int, seconds: float, dsn: str | None) -> None:
    with postgres(dsn) as server:
        postmaster = await postmaster_pid(server)
        comparisons = {}
        for name in modes:
            figures: dict[str, list[Figures]] = defaultdict(list)
            for number in range(1, rounds + 1):
                for subject, run in SUBJECTS.items():
                    measured = await measure(run, MODES[name], seconds, server, postmaster)
                    print(f"{name}, round {number}: {subject} {measured.per_s:,.0f}/s", flush=True)
                    figures[subject].append(measured)
            comparisons[name] = compare(name, figures["floor"], figures["sagad"])
    write_json(comparisons, rounds, seconds)
    print_table(comparisons)


async def profile_mode(mode: str, subject: str, seconds: float, dsn: str | None) -> None:
    with postgres(dsn) as server:
        print(await profile(SUBJECTS[subject], mode, MODES[mode], seconds, server))


@app.default
def bench(
    *,
    modes: str = ",".join(MODES),
    rounds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 3,
    seconds: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 8,
    dsn: str | None = None,
) -> None:
    """Prints a table and writes bench/out/latest.json.

    Parameters
    ----------
    modes
        Comma-separated.
    rounds
        Runs of each in each mode; medians of fewer than three say little.
    seconds
        Length of a run, after two seconds of warming up.
    dsn
        Of a PostgreSQL on this machine to use instead of an embedded one.
    """
    names = modes.split(",")
    check_modes(names)
    asyncio.run(compare_modes(names, rounds, seconds, dsn))


@app.command(name="profile")
def profile_command(
    *, mode: str = "unary-64", subject: Literal["floor", "sagad"] = "sagad", seconds: float = 8, dsn: str | None = None
) -> None:
    """Draws a flame graph of the coordinator in bench/out/MODE.svg, and prints what takes most of its time.

    Needs py-spy, and the right to trace.
    """
    check_modes([mode])
    asyncio.run(profile_mode(mode, subject, seconds, dsn))


@app.command(name="watch")
def watch_command(*, watchers: str = "1,100,1000", seconds: float = 8, dsn: str | None = None) -> None:
    """Watchers of one share each of the sagas: how soon they hear of transitions, and what they cost."""
    counts = [int(count) for count in watchers.split(",")]
    with postgres(dsn) as server:
        print_rows("watch", [asyncio.run(watch(server, count, seconds)) for count in counts])


@app.command(name="recovery")
def recovery_command(*, sagas: int = 20_000, dsn: str | None = None) -> None:
    """A node is killed with so many sagas in flight: how soon it, started again, or two others have ended them."""
    with postgres(dsn) as server:
        print_rows("recovery", [asyncio.run(recovery(server, sagas, others)) for others in (0, 2)])


@app.command(name="sleepers")
def sleepers_command(
    *, sagas: int = 1_000_000, woken: int = 4_000, per_s: float = 200, seconds: float = 8, dsn: str | None = None
) -> None:
    """So many sagas that sleep: its memory, and how late WOKEN more are that are due at PER-S, or at once."""
    with postgres(dsn) as server:
        row = asyncio.run(sleepers(server, sagas, woken, per_s, seconds))
    print_rows("sleepers", columns(row))


@app.command(name="sustained")
def sustained_command(*, mode: str = "unary-64", minutes: float = 5, dsn: str | None = None) -> None:
    """One mode for minutes: latencies and memory over time."""
    check_modes([mode])
    with postgres(dsn) as server:
        print_rows("sustained", asyncio.run(sustained(server, MODES[mode], minutes)))


@app.command(name="purge")
def purge_command(*, sagas: int = 500_000, rounds: int = 3, seconds: float = 8, dsn: str | None = None) -> None:
    """So many ended sagas that are due: sagas a second without and with the purge of them, in alternating rounds."""
    with postgres(dsn) as server:
        row = asyncio.run(purge(server, sagas, rounds, seconds))
    print_rows("purge", columns(row))


@app.command(name="size")
def size_command(*, sagas: int = 1_000_000, seconds: float = 8, dsn: str | None = None) -> None:
    """So many ended sagas in the tables: throughput, and the medians of reads."""
    with postgres(dsn) as server:
        row = asyncio.run(size(server, sagas, seconds))
    print_rows("size", columns(row))


@app.command(name="locks")
def locks_command(
    *,
    rounds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 3,
    seconds: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 8,
    dsn: str | None = None,
) -> None:
    """Sagas without a lock, with one that is free, and with one that others want: what each costs."""
    with postgres(dsn) as server:
        print_rows("locks", asyncio.run(locks(server, rounds, seconds)))


def check_modes(names: list[str]) -> None:
    if unknown := [name for name in names if name not in MODES]:
        raise SystemExit(f"unknown modes {unknown}; there are {list(MODES)}")


if __name__ == "__main__":
    app()
