"""The page on faults knows every kind that the chaos tests know."""

import re
from pathlib import Path

import pytest
from support.chaos.report import COLUMNS, HEADING, KINDS, Row, report
from support.pages import DOCS, table

PAGE = DOCS / "explanation" / "faults.md"


def test_every_kind_of_fault_has_its_row_with_its_sentence_and_no_other() -> None:
    rows = table(PAGE, HEADING.removeprefix("## "))
    assert {row[0]: row[1] for row in rows} == KINDS
    assert all(re.fullmatch(r"[1-9][\d,]*", row[2]) for row in rows), "each was struck by the run"


def test_a_run_replaces_its_own_row_and_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "faults.md"
    first, second = list(KINDS)[:2]
    page.write_text(f"# Top\n\n{HEADING}\n\nWords.\n\n## Next\n\nMore.\n")
    monkeypatch.setenv("SAGAD_FAULTS_PAGE", str(page))
    report([Row(second, 1, 7, "nothing", [0.5]), Row(first, 3, 9, "nothing", [1.0, 2.0, 6.0])])
    report([Row(second, 2, 1234, "nothing", [1.0, 3.0])])
    names = [row[0] for row in table(page, HEADING.removeprefix("## "))]
    assert names == [first, second]
    assert table(page, HEADING.removeprefix("## "))[1][2:] == ["2", "1,234", "nothing", "2.0 s, at most 3.0 s"]
    assert page.read_text().endswith("## Next\n\nMore.\n")
    assert f"| {COLUMNS[0]} |" in page.read_text()
