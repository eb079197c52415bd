"""SAGAD_REQUIRE_ALL."""

import pytest
from support.skips import _refuse_skip


def report(outcome: str) -> pytest.TestReport:
    why = ("file.py", 7, "Skipped: no server here") if outcome == "skipped" else None
    return pytest.TestReport("a test", ("file.py", 7, ""), {}, outcome, why, "call")  # type: ignore[arg-type]


def test_a_skip_fails_and_says_why_where_everything_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAD_REQUIRE_ALL", "1")

    refused = _refuse_skip(report("skipped"))

    assert refused.outcome == "failed"
    assert "no server here" in str(refused.longrepr)


def test_a_skip_is_a_skip_where_not_everything_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGAD_REQUIRE_ALL", raising=False)

    assert _refuse_skip(report("skipped")).outcome == "skipped"


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_other_outcomes_stay(monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    monkeypatch.setenv("SAGAD_REQUIRE_ALL", "1")

    assert _refuse_skip(report(outcome)).outcome == outcome


def test_an_expected_failure_is_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAD_REQUIRE_ALL", "1")
    expected = report("skipped")
    expected.wasxfail = "known"

    assert _refuse_skip(expected).outcome == "skipped"
