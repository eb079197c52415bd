"""The table in docs/explanation/faults.md, as runs write it.

Only where SAGAD_FAULTS_PAGE names that page; each run replaces its own rows, and leaves those of others.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from support.chaos.faults import FAULTS
from support.chaos.judging import Verdict

VARIABLE = "SAGAD_FAULTS_PAGE"
HEADING = "## What was done, and what was lost"
COLUMNS = ("fault", "what happens", "how often", "sagas meanwhile", "lost", "all had ended after")


@dataclass(frozen=True)
class Strike:
    """One fault, from its beginning to its end."""

    name: str
    began: datetime
    ended: datetime


@dataclass(frozen=True)
class Row:
    """One kind of fault over a whole run, or a run that is a kind of its own."""

    name: str
    what: str
    """A sentence for people; it says what the run's figures depend on, such as the lease."""
    times: int
    sagas: int
    lost: str
    until_ended_s: list[float]
    """For each time, or for the run: from the end of the fault until all sagas had ended that moved then."""

    def cells(self) -> list[str]:
        middle, longest = median(self.until_ended_s), max(self.until_ended_s)
        lasted = f"{middle:.1f} s" if len(self.until_ended_s) == 1 else f"{middle:.1f} s, at most {longest:.1f} s"
        return [self.name, self.what, f"{self.times:,}", f"{self.sagas:,}", self.lost, lasted]


def rows_of(strikes: Iterable[Strike], verdict: Verdict) -> list[Row]:
    """One for each kind that struck, in a run of which nothing may be lost."""
    by_name = defaultdict(list)
    for strike in strikes:
        by_name[strike.name].append(strike)
    return [
        Row(
            name,
            FAULTS[name].what,
            len(same),
            sum(verdict.moving(strike.began, strike.ended) for strike in same),
            lost_of(verdict),
            [verdict.until_ended_s(strike.ended) for strike in same],
        )
        for name, same in by_name.items()
    ]


def lost_of(verdict: Verdict) -> str:
    """The cell of a run of which nothing may be lost."""
    return f"{len(verdict.lost)} sagas, {len(verdict.violations)} violations" if verdict.guilty else "nothing"


def report(rows: Iterable[Row]) -> None:
    """Says what came out, and writes it into the page where that is asked for."""
    written = {row.name: row.cells() for row in rows}
    for cells in written.values():
        print(" | ".join((cells[0], *cells[2:])), file=sys.stderr)
    if page := os.environ.get(VARIABLE):
        _write(Path(page), written)


def _write(page: Path, written: dict[str, list[str]]) -> None:
    before, heading, section = page.read_text(encoding="utf-8").partition(f"{HEADING}\n")
    assert heading, f"{page} has no heading {HEADING!r}"
    own, next_heading, after = section.partition("\n## ")
    words = [line for line in own.splitlines() if not line.startswith("| ")]
    old = [line[2:-2].split(" | ") for line in own.splitlines() if line.startswith("| ")]
    rows = {cells[0]: cells for cells in old[2:]} | written
    names = [name for name in FAULTS if name in rows] + [name for name in rows if name not in FAULTS]
    table = [COLUMNS, ["---"] * len(COLUMNS), *(rows[name] for name in names)]
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    text = "\n".join(words).strip()
    page.write_text(f"{before}{heading}\n{text}\n\n{lines}\n{next_heading}{after}", encoding="utf-8")
