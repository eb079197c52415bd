"""The command line of the bench."""

import asyncio
from collections import defaultdict
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from bench import subjects
from bench.database import postgres, postmaster_pid
from bench.measure import Figures, measure
from bench.modes import MODES
from bench.profile import profile
from bench.report import compare, print_table, write_json

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


def check_modes(names: list[str]) -> None:
    if unknown := [name for name in names if name not in MODES]:
        raise SystemExit(f"unknown modes {unknown}; there are {list(MODES)}")


if __name__ == "__main__":
    app()
