"""What the bench says, given what it has measured."""

import json
from pathlib import Path

import pytest

from bench import report
from bench.measure import Figures
from bench.profile import summarize


def figures(per_s: float, p50_ms: float = 1.0) -> Figures:
    return Figures(
        per_s=per_s,
        p50_ms=p50_ms,
        p99_ms=2.0,
        coordinator_cpu_us=700.4,
        postgres_cpu_us=200.0,
        participant_cpu_us=400.0,
        commits_per_saga=1.23456,
    )


def test_a_stray_run_does_not_move_the_ratio() -> None:
    floor = [figures(1000), figures(1000), figures(9000)]
    sagad = [figures(500), figures(1), figures(500)]
    assert report.compare("unary-64", floor, sagad).floor_ratio == 0.5


def test_lone_compares_latencies_and_less_than_one_is_slower() -> None:
    comparison = report.compare("lone", [figures(1, p50_ms=4.0)], [figures(1, p50_ms=8.0)])
    assert comparison.floor_ratio == 0.5


def test_the_latest_figures_are_written_by_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "LATEST", tmp_path / "out" / "latest.json")
    report.write_json({"unary-64": report.compare("unary-64", [figures(1000)], [figures(640)])}, rounds=3, seconds=8)
    mode = json.loads(report.LATEST.read_text())["modes"]["unary-64"]
    assert mode["floor_ratio"] == 0.64
    assert (mode["per_s"], mode["coordinator_cpu_us"], mode["commits_per_saga"]) == (640, 700, 1.235)
    assert mode["floor"]["per_s"] == 1000
    assert mode.keys() == set(Figures.__slots__) | {"floor_ratio", "floor"}


def test_a_profile_counts_a_recursive_function_once_a_sample() -> None:
    table = summarize("run (app.py:1);walk (tree.py:5);walk (tree.py:9) 3\nrun (app.py:2) 1\n")
    assert table.splitlines()[1:] == [" 75.0%  75.0%  walk (tree.py)", " 25.0% 100.0%  run (app.py)"]
