"""`make demo` and `make run`, as a newcomer meets them."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgres import new_folder
from support.processes import environment

from sagad_server.embedded import EmbeddedPostgres


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with (tmp_path_factory.getbasetemp().parent / "default-ports").open("w") as ports, new_folder() as path:
        fcntl.flock(ports, fcntl.LOCK_EX)  # both want them, and tests run several at once
        try:
            yield path
        finally:
            EmbeddedPostgres(path / "postgres").stop()  # it outlives both on purpose


def test_the_demo_adds_up_twice_in_a_row(folder: Path) -> None:
    words = [sys.executable, "-m", "sagad_examples.demo", "--data-dir", str(folder)]
    for _ in range(2):  # the second on the data of the first
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, env=environment(), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "sagad is dead" in done.stdout
        assert "COMPENSATED" in done.stdout
        assert "It adds up" in done.stdout


def test_make_run_serves_prints_lines_to_paste_and_ends_on_ctrl_c(folder: Path) -> None:
    words = [sys.executable, "-m", "sagad_examples.run", "--data-dir", str(folder)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert child.stdout is not None
        lines = []
        while not lines or not lines[-1].startswith("sagactl"):
            line = child.stdout.readline()
            assert line, lines
            lines.append(line)
        assert sum(line.startswith("grpcurl -plaintext") for line in lines) >= 4
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    finally:
        if child.poll() is None:
            child.kill()
        assert child.stdout is not None
        child.stdout.close()
