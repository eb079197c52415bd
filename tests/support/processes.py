"""sagad as a real process, to be killed for real."""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_TIMEOUT_S = 60.0
Target = str | Mapping[str, object]
"""A participant: its address, or its section of the configuration."""


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw")) % 10
_RANGE = range(10_000 + 1000 * _WORKER, 11_000 + 1000 * _WORKER)
_PORTS = itertools.cycle(random.SystemRandom().sample(_RANGE, len(_RANGE)))
"""Those of this process, below the range from which outgoing connections get theirs, and apart from those of the other
processes that run tests: what is killed and started again is to find its port free."""


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given soon."""
    for port in itertools.islice(_PORTS, len(_RANGE)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"none of the ports from {_RANGE[0]} to {_RANGE[-1]} is free")


def environment() -> dict[str, str]:
    """Ours, without what sagad would take for its configuration."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SAGAD_")}


class SagadProcess:
    """`sagad serve` on a port that stays the same over its deaths."""

    def __init__(
        self, folder: Path, dsn: str, participants: Mapping[str, Target], port: int = 0, **sections: dict[str, object]
    ) -> None:
        self.address = f"127.0.0.1:{port or free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self._config = folder / "sagad.yaml"
        self._log = folder / "sagad.log"
        config: dict[str, object] = {
            "grpc": {"address": self.address},
            "http": {"address": self.http},
            "postgres": {"dsn": dsn},
            "participants": {
                name: {"target": target} if isinstance(target, str) else dict(target)
                for name, target in participants.items()
            },
            "node": {"name": "test"},
            **sections,
        }
        self._config.write_text(yaml.safe_dump(config))
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, wait: bool = True) -> None:
        words = [sys.executable, "-m", "sagad_server.cli", "serve", "--config", str(self._config), *options]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(words, stdout=log, stderr=log, env=environment())
        if wait:
            self.wait_until_serving()

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def serving(self, timeout_s: float = 1.0) -> bool:
        """What grpc.health.v1 says; False too where nobody answers."""
        with grpc.insecure_channel(self.address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
            except grpc.RpcError:
                return False
        serving: bool = answer.status == health_pb2.HealthCheckResponse.SERVING
        return serving

    def wait_until_serving(self) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self.serving():
            assert self.alive, f"sagad has ended:\n{self.log()[-3000:]}"
            assert time.monotonic() < give_up_at, f"sagad does not serve:\n{self.log()[-3000:]}"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        return self._child.wait(60)

    def log(self) -> str:
        return self._log.read_text(errors="replace")


@contextmanager
def sagad_process(
    folder: Path,
    dsn: str,
    participants: Mapping[str, Target],
    port: int = 0,
    *,
    wait: bool = True,
    **sections: dict[str, object],
) -> Iterator[SagadProcess]:
    """A running one, gone afterwards. `wait` blocks the loop: not while that has to serve it."""
    process = SagadProcess(folder, dsn, participants, port, **sections)
    process.start(wait=wait)
    try:
        yield process
    finally:
        if process.alive:
            process.kill()
