"""What the bench says, given what it has measured."""

import json
from pathlib import Path

import pytest

from bench import load, report
from bench.measure import Figures
from bench.modes import MODES
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


def test_a_profile_adds_up_native_functions_without_a_name_by_their_library() -> None:
    table = summarize(
        "run (app.py:1);0x7f01 (cygrpc.so) 1\nrun (app.py:1);0x7f02 (cygrpc.so) 1\nrun (app.py:1);read (libc.so.6) 2\n"
    )
    assert table.splitlines()[1:] == [" 50.0%  50.0%  (cygrpc.so)", " 50.0%  50.0%  read (libc.so.6)"]


def test_percentiles_are_of_what_was_measured_and_none_of_nothing() -> None:
    assert [report.percentile_ms([0.001, 0.002, 0.003], share) for share in (0, 0.5, 1)] == [1, 2, 3]
    assert report.percentile_ms([], 0.5) == 0


def test_rows_are_a_table_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "OUT", tmp_path / "out")
    rows = report.columns({"rss_mib": 81.25, "ended": 20_000})
    report.print_rows("size", rows)
    assert json.loads((tmp_path / "out" / "size.json").read_text()) == rows
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("rss mib", "81.25", "20,000"))


@pytest.mark.parametrize("name", MODES)
def test_the_load_takes_the_options_of_each_mode(name: str) -> None:
    options = MODES[name].options()
    command, bound, *_ = load.app.parse_args(["sagad", "--port", "1", "--seconds", "1", *options], exit_on_error=False)
    assert (command, bound.kwargs["clients"]) == (load.main, MODES[name].clients)
