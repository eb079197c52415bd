"""The page on faults knows every kind that the chaos tests know."""

import re
from pathlib import Path

import pytest
from support.chaos.faults import FAULTS
from support.chaos.report import COLUMNS, HEADING, Row, report
from support.pages import DOCS, table

PAGE = DOCS / "explanation" / "faults.md"


def test_every_kind_of_fault_has_its_row_with_its_sentence_before_the_runs_of_a_kind_of_their_own() -> None:
    rows = table(PAGE, HEADING.removeprefix("## "))
    assert [row[:2] for row in rows[: len(FAULTS)]] == [[fault.name, fault.what] for fault in FAULTS.values()]
    assert all(re.fullmatch(r"[1-9][\d,]*", row[2]) for row in rows), "each was struck by the run"


def test_a_run_replaces_its_own_rows_and_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "faults.md"
    first, second = list(FAULTS)[:2]
    page.write_text(f"# Top\n\n{HEADING}\n\nWords.\n\n## Next\n\nMore.\n")
    monkeypatch.setenv("SAGAD_FAULTS_PAGE", str(page))
    report([Row("a run of its own", "With a lease of 2 s.", 1000, 40_000, "nothing", [4.0])])
    report([Row("another run", "Once.", 1, 3, "2 sagas", [0.1])])
    report([Row(second, "B.", 1, 7, "nothing", [0.5]), Row(first, "A.", 3, 9, "nothing", [1.0, 2.0, 6.0])])
    report([Row(second, "B.", 2, 1234, "nothing", [1.0, 3.0])])
    report([Row("a run of its own", "With a lease of 8 s.", 1000, 50_000, "nothing", [9.0])])
    assert table(page, HEADING.removeprefix("## ")) == [
        [first, "A.", "3", "9", "nothing", "2.0 s, at most 6.0 s"],
        [second, "B.", "2", "1,234", "nothing", "2.0 s, at most 3.0 s"],
        ["a run of its own", "With a lease of 8 s.", "1,000", "50,000", "nothing", "9.0 s"],
        ["another run", "Once.", "1", "3", "2 sagas", "0.1 s"],
    ]
    assert page.read_text().endswith("## Next\n\nMore.\n")
    assert f"| {COLUMNS[0]} |" in page.read_text()
