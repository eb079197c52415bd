"""The command `sagad`: what a person meets who starts it."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.postgres import database, execute, new_folder
from support.processes import SagadProcess, environment, free_port, sagad_process

from sagad_server.embedded import EmbeddedPostgres

ANY_PORTS = ("--set", "grpc.address=127.0.0.1:0", "--set", "http.address=127.0.0.1:0")


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


def sagad(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sagad_server.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment() | variables,
        check=False,
    )


def test_check_config_prints_everything_with_secrets_hidden(folder: Path) -> None:
    path = folder / "sagad.yaml"
    path.write_text("postgres: {dsn: 'postgresql://me:hush@db/sagad'}\n")
    done = sagad("check-config", "--config", str(path), SAGAD_LIMITS__MAX_WATCHES="7")
    assert done.returncode == 0, done.stderr
    assert "hush" not in done.stdout
    shown = yaml.safe_load(done.stdout)
    assert shown["limits"]["max_watches"] == 7
    assert shown["grpc"]["address"] == "127.0.0.1:7400"


def test_every_fault_of_a_configuration_is_told_at_once(folder: Path) -> None:
    path = folder / "sagad.yaml"
    path.write_text("postgres: {dsn: 'mysql://x'}\ngrcp: {}\n")
    done = sagad("check-config", "--config", str(path), "--set", "log.level=loud", SAGAD_NONSENSE="1")
    assert done.returncode == 2
    for fault in ("postgres.dsn", "grcp", "log.level"):
        assert fault in done.stderr or "NONSENSE" in done.stderr
    assert "Traceback" not in done.stderr


def test_flags_win_over_the_environment_and_that_over_the_file(folder: Path) -> None:
    path = folder / "sagad.yaml"
    path.write_text("postgres: {dsn: 'postgresql://db/x'}\nlimits: {max_watches: 1, max_batch: 1, claim_batch: 1}\n")
    words = ("check-config", "--config", str(path), "--set", "limits.max_batch=3")
    done = sagad(*words, SAGAD_LIMITS__MAX_BATCH="2", SAGAD_LIMITS__CLAIM_BATCH="2")
    limits = yaml.safe_load(done.stdout)["limits"]
    assert (limits["max_watches"], limits["claim_batch"], limits["max_batch"]) == (1, 2, 3)


def test_migrate_says_what_it_did_and_then_has_nothing_to_do(postgres_dsn: str) -> None:
    first = sagad("migrate", "--set", f"postgres.dsn={postgres_dsn}")
    assert first.returncode == 0, first.stderr
    assert "0001" in first.stdout
    again = sagad("migrate", "--set", f"postgres.dsn={postgres_dsn}")
    assert again.returncode == 0
    assert "up to date" in again.stdout


def test_a_newer_schema_is_refused_with_a_clear_message(postgres_dsn: str) -> None:
    sagad("migrate", "--set", f"postgres.dsn={postgres_dsn}")
    execute(postgres_dsn, "INSERT INTO sagad.schema_migration (version, name) VALUES (9999, 'from the future')")
    done = sagad("serve", "--set", f"postgres.dsn={postgres_dsn}", *ANY_PORTS)
    assert done.returncode == 1
    assert "9999" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_so(folder: Path, postgres_dsn: str, postgres_server_dsn: str) -> None:
    with sagad_process(folder, postgres_dsn, {}) as running, database(postgres_server_dsn) as other:
        words = ("--set", f"postgres.dsn={other}", "--set", "http.address=127.0.0.1:0")
        done = sagad("serve", *words, "--set", f"grpc.address={running.address}")
        assert done.returncode == 1
        assert running.address in done.stderr
        assert "Traceback" not in done.stderr


def test_an_http_port_that_is_taken_is_said_before_a_node_of_the_same_name_is_pushed_aside(
    folder: Path, postgres_dsn: str
) -> None:
    with sagad_process(folder, postgres_dsn, {}) as running:
        words = (
            "--set",
            f"postgres.dsn={postgres_dsn}",
            "--set",
            "node.name=test",
            "--set",
            "grpc.address=127.0.0.1:0",
        )
        done = sagad("serve", *words, "--set", f"http.address={running.http}")
        assert done.returncode == 1
        assert running.http in done.stderr
        assert "Traceback" not in done.stderr
        nodes = asyncio.run(_nodes(postgres_dsn))
        assert nodes == [("test", 1)], "the one that could not listen has not registered"


def test_a_database_that_does_not_exist_is_said_at_once(postgres_dsn: str) -> None:
    done = sagad("serve", "--set", f"postgres.dsn={postgres_dsn}x", *ANY_PORTS)
    assert done.returncode == 1
    assert "does not exist" in done.stderr


def test_health_and_metrics_are_served_over_http(folder: Path, postgres_dsn: str) -> None:
    from urllib.request import urlopen

    with sagad_process(folder, postgres_dsn, {}) as running:
        with urlopen(f"http://{running.http}/health") as answer:
            assert answer.status == 200
            assert b"SERVING" in answer.read()
        with urlopen(f"http://{running.http}/metrics") as answer:
            assert b"sagad_commits_total" in answer.read()


def test_sigterm_ends_it_with_exit_code_0(folder: Path, postgres_dsn: str) -> None:
    process = SagadProcess(folder, postgres_dsn, {})
    process.start()
    assert process.terminate() == 0
    assert "stopped" in process.log()


def test_dev_serves_without_a_file_and_its_postgres_outlives_a_sigkill(folder: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "sagad_server.cli", "dev", "--data-dir", str(folder / "data")]
    words += ["--participant", "payment=127.0.0.1:1", "--set", f"grpc.address={address}"]
    words += ["--set", "http.address=127.0.0.1:0"]
    postgres = EmbeddedPostgres(folder / "data")
    try:
        pids = []
        for _ in range(2):
            with (folder / "log").open("ab") as log:
                child = subprocess.Popen(words, stdout=log, stderr=log, env=environment())
            try:
                with grpc.insecure_channel(address) as channel:
                    health, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
                    answers = health.Watch(request, timeout=60, wait_for_ready=True)
                    assert any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in answers)
                pids.append(postgres.pid)
            finally:
                child.kill()
                child.wait()
        assert pids[0] is not None
        assert pids[0] == pids[1], "the second start has attached to the same server"
    finally:
        postgres.start()
        postgres.stop()


def test_dev_says_what_is_wrong_with_a_participant() -> None:
    done = sagad("dev", "--participant", "payment")
    assert done.returncode == 2
    assert "NAME=HOST:PORT" in done.stderr


async def test_the_database_is_sagads_own_schema(postgres_dsn: str) -> None:
    sagad("migrate", "--set", f"postgres.dsn={postgres_dsn}")
    connection = await asyncpg.connect(postgres_dsn)
    try:
        schemas = await connection.fetch("SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname !~ '^(pg_|info)'")
    finally:
        await connection.close()
    assert [row[0] for row in schemas] == ["sagad"]


async def _nodes(dsn: str) -> list[tuple[str, int]]:
    """Name and state (1: LIVE) of every registration."""
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch("SELECT node_name, state FROM sagad.nodes")]
    finally:
        await connection.close()
