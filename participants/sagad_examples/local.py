"""A sagad and the example participants on this machine, as processes of their own, over one embedded PostgreSQL."""

import asyncio
import os

# Processes are started while gRPC runs in this one; its fork handlers crash the child between fork and exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from sagad_client import Client, SagadError, load_definitions
from sagad_server.embedded import EmbeddedPostgres, default_data_dir

GRPC_PORT, HTTP_PORT, FIRST_PARTICIPANT_PORT = 7400, 7401, 7411
PARTICIPANTS = ("inventory", "payment", "shipping")
DEFINITIONS = Path(__file__).parent / "definitions"
_START_TIMEOUT_S = 60.0
_DATABASE = "examples"


class LocalError(Exception):
    """Something on this machine did not start. The message says what, and where its log is."""


class Process:
    """A child whose output goes to a log file."""

    def __init__(self, name: str, words: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SAGAD_")}
        with log.open("ab") as out:
            self._child = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                [sys.executable, "-m", *words], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment
            )

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        """SIGKILL: no time for anything."""
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that takes too long."""
        if self.alive:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()

    def check(self) -> None:
        """Raises LocalError if it has ended."""
        if not self.alive:
            last = self.log.read_text(errors="replace").splitlines()[-5:]
            raise LocalError(f"{self.name} has ended; the end of its log {self.log}:\n" + "\n".join(last))


class Local:
    """Everything together. `folder` is for its data and its logs; `name` chooses it if nobody else does."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.folder = folder or default_data_dir().parent / name
        self.address = f"127.0.0.1:{_port(GRPC_PORT)}"
        self._http_port = _port(HTTP_PORT)
        self._first_port = _ports(FIRST_PARTICIPANT_PORT, len(PARTICIPANTS))
        self._postgres = EmbeddedPostgres(self.folder / "postgres")
        self.dsn = ""
        """Of the examples' database."""

    async def prepare(self) -> None:
        """Starts PostgreSQL, and makes the examples' database."""
        await asyncio.to_thread(self._postgres.start)
        connection = await asyncpg.connect(self._postgres.dsn)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", _DATABASE):
                await connection.execute(f"CREATE DATABASE {_DATABASE}")
        finally:
            await connection.close()
        self.dsn = self._postgres.dsn.rpartition("/")[0] + "/" + _DATABASE

    def participants(self) -> Process:
        words = ["sagad_examples", "--dsn", self.dsn, "--port", str(self._first_port), "--sagad", self.address]
        return Process("the example participants", words, self._log("participants"))

    def sagad(self) -> Process:
        words = ["sagad_server.cli", "dev", "--data-dir", str(self.folder / "postgres")]
        for index, name in enumerate(PARTICIPANTS):
            words += ["--participant", f"{name}=127.0.0.1:{self._first_port + index}"]
        words += ["--set", f"grpc.address={self.address}", "--set", f"http.address=127.0.0.1:{self._http_port}"]
        return Process("sagad", words, self._log("sagad"))

    def _log(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{name}.log"

    async def ready(self, client: Client, *processes: Process) -> None:
        """Returns when sagad serves and reaches every participant."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _START_TIMEOUT_S
        while True:
            for process in processes:
                process.check()
            try:
                if all(participant.reachable for participant in await client.admin.participants()):
                    return
            except SagadError as error:
                if loop.time() > give_up_at:
                    raise LocalError(f"sagad does not answer at {self.address}: {error}") from error
            if loop.time() > give_up_at:
                raise LocalError(f"sagad does not reach its participants; see {self._log('participants')}")
            await asyncio.sleep(0.1)

    async def apply_definitions(self, client: Client) -> list[str]:
        names = []
        for path in sorted(DEFINITIONS.glob("*.yaml")):
            for definition in load_definitions(path):
                await client.definitions.create(definition)
                names.append(f"{definition.definition_id} {definition.version}")
        return names


@contextmanager
def stopping(processes: list[Process]) -> Iterator[None]:
    """Stops them all, the last one first, whatever happens."""
    try:
        yield
    finally:
        for process in reversed(processes):
            process.stop()


def _port(wanted: int) -> int:
    """The port itself while it is free, else any free one."""
    return wanted if _is_free(wanted) else _any_port()


def _ports(first: int, count: int) -> int:
    """The first of `count` ports in a row that are free."""
    while not all(_is_free(first + offset) for offset in range(count)):
        first = _any_port()
    return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
