"""Medians of the rounds, as a table and as bench/out/latest.json."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.measure import Figures
from bench.processes import OUT

LATEST = OUT / "latest.json"
TABLE_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Comparison:
    """The medians of a mode's rounds. `floor_ratio` is 1 where sagad is as fast as the floor, less if it is slower."""

    floor: Figures
    sagad: Figures
    floor_ratio: float


def compare(mode: str, floor: Sequence[Figures], sagad: Sequence[Figures]) -> Comparison:
    """For `lone`, the ratio compares the median latencies, for the others the sagas a second."""
    low, own = medians(floor), medians(sagad)
    return Comparison(low, own, low.p50_ms / own.p50_ms if mode == "lone" else own.per_s / low.per_s)


def medians(rounds: Sequence[Figures]) -> Figures:
    return Figures(**{name: median(asdict(figures)[name] for figures in rounds) for name in asdict(rounds[0])})


def write_json(comparisons: dict[str, Comparison], rounds: int, seconds: float) -> None:
    modes: dict[str, Any] = {}
    for name, comparison in comparisons.items():
        ratio = round(comparison.floor_ratio, 3)
        modes[name] = {**_rounded(comparison.sagad), "floor_ratio": ratio, "floor": _rounded(comparison.floor)}
    LATEST.parent.mkdir(exist_ok=True)
    document = {"rounds": rounds, "seconds": seconds, "cpus": os.cpu_count(), "modes": modes}
    LATEST.write_text(json.dumps(document, indent=2) + "\n")


def print_table(comparisons: dict[str, Comparison]) -> None:
    table = Table(title="Sagas, from start to end. CPU in us a saga; medians of the rounds.", box=SIMPLE_HEAD)
    for column in ("mode", "of"):
        table.add_column(column, no_wrap=True)
    for column in ("sagas/s", "p50 ms", "p99 ms", "coordinator", "PostgreSQL", "participant", "commits/saga", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, comparison in comparisons.items():
        table.add_row(name, "floor", *_cells(comparison.floor), "")
        table.add_row("", "sagad", *_cells(comparison.sagad), f"{comparison.floor_ratio:.2f}", end_section=True)
    Console(width=TABLE_WIDTH).print(table)


def percentile_ms(ordered_s: Sequence[float], share: float) -> float:
    """That of seconds in ascending order; 0 if there are none."""
    return ordered_s[int((len(ordered_s) - 1) * share)] * 1e3 if ordered_s else 0.0


def print_rows(name: str, rows: Sequence[Mapping[str, float | str]]) -> None:
    """Prints a table and writes bench/out/NAME.json. All rows have the columns of the first."""
    OUT.mkdir(exist_ok=True)
    OUT.joinpath(f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n")
    table = Table(title=name, box=SIMPLE_HEAD)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,.{_places(value)}f}" for value in row.values()))
    Console(width=TABLE_WIDTH).print(table)


def columns(row: Mapping[str, float | str]) -> list[dict[str, float | str]]:
    """One row of many columns, as rows of a figure each."""
    return [{"figure": name.replace("_", " "), "value": value} for name, value in row.items()]


def _places(value: float) -> int:
    return 0 if value == int(value) or abs(value) >= 100 else 2


def _cells(figures: Figures) -> list[str]:
    return [f"{value:,.{_digits(name)}f}" for name, value in asdict(figures).items()]


def _rounded(figures: Figures) -> dict[str, float]:
    return {name: round(value, _digits(name)) for name, value in asdict(figures).items()}


def _digits(name: str) -> int:
    if name.endswith("_us") or name == "per_s":
        return 0
    return 3 if name == "commits_per_saga" else 2
