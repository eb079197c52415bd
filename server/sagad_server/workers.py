"""`sagad serve --workers N`: N processes, each a full node, that share one port.

The supervisor serves nothing of the contract: it starts the workers, replaces those that die, passes SIGTERM on, and
speaks for all of them over HTTP.
"""

import asyncio
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from sagad_server.config import Config
from sagad_server.http_server import HttpServer

log = structlog.get_logger(__name__)

_ASK_TIMEOUT_S = 2.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 30.0
"""A worker that has lived so long was well: the next start is made without a pause."""


@dataclass(slots=True)
class Worker:
    """One slot: its process comes and goes, its name and ports stay."""

    name: str
    http_address: str
    words: list[str]

    def ask(self, path: str) -> str | None:
        """What it says over HTTP; None if it does not answer well."""
        try:
            with urllib.request.urlopen(f"http://{self.http_address}{path}", timeout=_ASK_TIMEOUT_S) as answer:
                body: bytes = answer.read()
        except OSError:
            return None
        return body.decode()


class WorkerMetrics:
    """The metrics of all workers, each sample with the label `worker`."""

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for worker, text in zip(self._workers, _ask_all(self._workers, "/metrics"), strict=True):
            for family in text_string_to_metric_families(text or ""):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type, family.unit)
                )
                merged.samples += [
                    sample._replace(labels={**sample.labels, "worker": worker.name}) for sample in family.samples
                ]
        yield from families.values()


class Supervisor:
    """Keeps the workers alive until SIGTERM."""

    def __init__(self, config: Config, count: int, config_file: Path | None, settings: list[str]) -> None:
        self._config = config
        self._stopping = asyncio.Event()
        self.workers = [_worker(config, number, config_file, settings) for number in range(count)]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        registry = CollectorRegistry()
        registry.register(WorkerMetrics(self.workers))
        http = HttpServer(self._config.http.address, registry, self._all_serve)
        http.start()
        log.info("supervising", workers=len(self.workers), grpc=self._config.grpc.address, http_port=http.port)
        try:
            await asyncio.gather(*(self._keep(worker) for worker in self.workers))
        finally:
            http.stop()

    def _all_serve(self) -> bool:
        return all(answer is not None for answer in _ask_all(self.workers, "/health"))

    async def _keep(self, worker: Worker) -> None:
        """Starts the worker anew whenever it dies, with growing pauses if it dies young."""
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            began_s = loop.time()
            process = await asyncio.create_subprocess_exec(*worker.words)
            ended = asyncio.ensure_future(process.wait())
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not ended.done():
                process.send_signal(signal.SIGTERM)
                await ended
                return
            log.warning("a worker has ended: it is replaced", worker=worker.name, code=ended.result())
            pause_s = _FIRST_PAUSE_S if loop.time() - began_s > _STEADY_S else min(pause_s * 2, _LONGEST_PAUSE_S)
            try:
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            except TimeoutError:
                continue


def _ask_all(workers: list[Worker], path: str) -> list[str | None]:
    with ThreadPoolExecutor(len(workers)) as pool:
        return list(pool.map(lambda worker: worker.ask(path), workers))


def _worker(config: Config, number: int, config_file: Path | None, settings: list[str]) -> Worker:
    name = f"{config.node.name}-{number + 1}"
    http_address = f"127.0.0.1:{_free_port()}"
    words = [sys.executable, "-m", "sagad_server.cli", "serve"]
    if config_file is not None:
        words += ["--config", str(config_file)]
    own = [
        f"node.name={name}",
        f"node.peer_address=127.0.0.1:{_free_port()}",
        "grpc.reuse_port=true",
        f"http.address={http_address}",
    ]
    for setting in [*settings, *own]:
        words += ["--set", setting]
    return Worker(name, http_address, words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
