"""The embedded PostgreSQL."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from support.postgres import execute, new_folder

from sagad_server import embedded_programs
from sagad_server.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_data_dir

START_AND_HANG = """
import pathlib, signal, sys
from sagad_server import embedded_programs
from sagad_server.embedded import EmbeddedPostgres
server = EmbeddedPostgres(pathlib.Path(sys.argv[1]), fsync=False)
server.start()
print(server.dsn, flush=True)
signal.pause()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path
        EmbeddedPostgres(path).stop()


def test_it_survives_a_sigkill_of_its_parent_and_is_attached_to_again(folder: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", START_AND_HANG, str(folder)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    dsn = parent.stdout.readline().strip()
    execute(dsn, "CREATE TABLE kept ()")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    survivor = EmbeddedPostgres(folder)
    pid = survivor.pid

    survivor.start()

    assert (survivor.pid, survivor.dsn) == (pid, dsn)
    execute(survivor.dsn, "SELECT FROM kept")


def test_the_data_and_the_port_are_there_after_stop_and_start(own_postgres: EmbeddedPostgres) -> None:
    dsn = own_postgres.dsn
    execute(dsn, "CREATE TABLE kept ()")

    own_postgres.stop()
    assert own_postgres.pid is None
    own_postgres.start()

    assert own_postgres.dsn == dsn
    execute(dsn, "SELECT FROM kept")


def test_it_starts_after_a_sigkill_of_the_server(own_postgres: EmbeddedPostgres) -> None:
    assert own_postgres.pid is not None
    execute(own_postgres.dsn, "CREATE TABLE kept ()")
    os.kill(own_postgres.pid, signal.SIGKILL)

    own_postgres.start()

    execute(own_postgres.dsn, "SELECT FROM kept")


def test_a_stale_pid_file_that_names_another_program_does_not_keep_it_from_starting(
    own_postgres: EmbeddedPostgres,
) -> None:
    own_postgres.stop()
    data = own_postgres.folder / "data"
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{data}\n0\n5432\n")

    own_postgres.start()

    assert own_postgres.pid not in (None, os.getpid())


def test_a_remembered_port_that_is_taken_is_replaced(own_postgres: EmbeddedPostgres) -> None:
    own_postgres.stop()
    kept = int((own_postgres.folder / "port").read_text())
    with socket.create_server(("127.0.0.1", kept)):
        own_postgres.start()

        assert int((own_postgres.folder / "port").read_text()) != kept
        execute(own_postgres.dsn, "SELECT 1")


def test_a_chosen_port_that_is_taken_is_refused_by_number(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedPostgresError, match=f"port {port} of 127.0.0.1 is taken"):
            EmbeddedPostgres(folder, port, fsync=False).start()


async def test_it_listens_on_loopback_alone_and_commits_durably(own_postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(own_postgres.dsn)
    try:
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        assert await connection.fetchval("SHOW unix_socket_directories") == str(own_postgres.folder / "data")
    finally:
        await connection.close()


async def test_fsync_is_on_unless_a_test_turns_it_off(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    connection = await asyncpg.connect(server.dsn)
    try:
        assert await connection.fetchval("SHOW fsync") == "on"
    finally:
        await connection.close()


def test_two_that_start_at_once_share_one_server(folder: Path) -> None:
    parents = [
        subprocess.Popen([sys.executable, "-c", START_AND_HANG, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    dsns = set()
    for parent in parents:
        assert parent.stdout is not None
        dsns.add(parent.stdout.readline())
        parent.kill()
        parent.wait()
        parent.stdout.close()

    assert len(dsns) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account")
def test_root_is_told_which_folder_nobody_cannot_enter(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=f"cannot enter {private}: .* chmod o\\+x {private}"):
        EmbeddedPostgres(private / "database").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account")
def test_root_runs_a_copy_where_nobody_cannot_reach_the_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_programs, "ROOTS_COPIES", folder / "copies")
    monkeypatch.setattr(embedded_programs.Programs, "_runs", lambda *_: False)
    for _ in range(2):
        server = EmbeddedPostgres(folder / "database", fsync=False)
        server.start()
        execute(server.dsn, "SELECT 1")
        server.stop()

    assert len(list((folder / "copies").iterdir())) == 1


def test_the_dsn_of_a_server_that_is_not_started_is_refused(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="not started"):
        _ = EmbeddedPostgres(folder).dsn


def test_the_default_folder_is_below_the_data_folder_of_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere/share")
    assert default_data_dir() == Path("/somewhere/share/sagad/postgres")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/sagad/postgres")


def test_a_folder_with_a_long_path_gets_no_socket_and_works(folder: Path) -> None:
    server = EmbeddedPostgres(folder / ("long" * 25), fsync=False)
    server.start()
    try:
        execute(server.dsn, "SELECT 1")
    finally:
        server.stop()
