"""What is measured: the floor and sagad, each as a coordinator and a participant in processes of their own."""

import asyncio
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias
from urllib.request import urlopen

import grpc.aio
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from bench import floor_pb2, floor_pb2_grpc
from bench.definitions import definitions
from bench.modes import Mode
from bench.processes import PYTHON, READY_WITHIN_S, SAGAD, free_port, port_of, running
from sagad.v1 import definition_service_pb2
from sagad.v1 import definition_service_pb2_grpc as rpc

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Running:
    """A coordinator that serves on `port`; `commits` counts those of its writer since its start."""

    name: Literal["floor", "sagad"]
    port: int
    coordinator_pid: int
    participant_pid: int
    commits: Callable[[], Awaitable[int]]


Subject: TypeAlias = Callable[[str, Mode], AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def floor(dsn: str, mode: Mode) -> AsyncIterator[Running]:
    """Runs the floor on an empty database, for this mode."""
    async with running(PYTHON, "-m", "bench.floor", "participant") as participant:
        options = ["--dsn", dsn, "--participant-port", str(await port_of(participant))]
        options += ["--refuse"] * mode.refuse + ["--five"] * mode.graph + ["--sessions"] * mode.sessions
        async with running(PYTHON, "-m", "bench.floor", "coordinator", *options) as coordinator:
            port = await port_of(coordinator)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub: floor_pb2_grpc.CoordinatorAsyncStub = floor_pb2_grpc.CoordinatorStub(channel)

                async def commits() -> int:
                    return (await stub.GetStats(floor_pb2.GetStatsRequest())).commits

                yield Running("floor", port, coordinator.pid, participant.pid, commits)


@asynccontextmanager
async def sagad(dsn: str, mode: Mode, service: Mapping[str, str] = NO_SETTINGS) -> AsyncIterator[Running]:
    """Runs sagad, with the definitions `bench...`; the load takes one. `service` are settings."""
    async with (
        running(PYTHON, "-m", "bench.participant", *["--sessions"] * mode.sessions) as participant,
        node(dsn, await port_of(participant), workers=mode.workers, service=service) as server,
    ):
        await create_definitions(server.port)
        yield Running("sagad", server.port, server.process.pid, participant.pid, server.commits)


@dataclass(frozen=True, slots=True)
class Node:
    """A process of sagad that serves."""

    process: Process
    port: int
    http_port: int

    async def commits(self) -> int:
        """The writer's commits, from sagad's metrics."""
        url = f"http://127.0.0.1:{self.http_port}/metrics"
        text = await asyncio.to_thread(lambda: urlopen(url, timeout=10).read().decode())
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return int(sum(sample.value for sample in samples if sample.name == "sagad_commits_total"))


@asynccontextmanager
async def node(
    dsn: str,
    participant_port: int,
    *,
    name: str = "bench",
    workers: int = 1,
    service: Mapping[str, str] = NO_SETTINGS,
) -> AsyncIterator[Node]:
    """Runs sagad on a database, for the participant `bench`. Raises RuntimeError if it ends before it serves."""
    with tempfile.TemporaryDirectory(prefix="sagad-bench-") as folder:
        log_path, port, http_port = Path(folder, "log"), free_port(), free_port()
        config = {
            "node": {"name": name},
            "service": dict(service),
            "grpc": {"address": f"127.0.0.1:{port}"},
            "http": {"address": f"127.0.0.1:{http_port}"},
            "postgres": {"dsn": dsn},
            "participants": {"bench": {"target": f"127.0.0.1:{participant_port}"}},
        }
        Path(folder, "sagad.yaml").write_text(yaml.safe_dump(config))
        command = [SAGAD, "serve", "--config", f"{folder}/sagad.yaml", "--workers", str(workers)]
        with log_path.open("wb") as log:
            async with running(*command, log=log) as process:
                try:
                    await serving(process, port)
                except (RuntimeError, grpc.aio.AioRpcError) as error:
                    error.add_note(log_path.read_text()[-4000:])
                    raise
                yield Node(process, port, http_port)


async def serving(server: Process, port: int) -> None:
    """Waits until sagad serves. Raises RuntimeError if it ends instead."""
    ended = asyncio.create_task(server.wait())
    ready = asyncio.create_task(said_serving(port))
    await asyncio.wait((ended, ready), return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        ready.cancel()
        raise RuntimeError(f"sagad ended with {ended.result()} before it served")
    ended.cancel()
    ready.result()


async def said_serving(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest()
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True, timeout=READY_WITHIN_S)
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        watch.cancel()


async def create_definitions(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: rpc.DefinitionServiceAsyncStub = rpc.DefinitionServiceStub(channel)
        for definition in definitions():
            await stub.CreateDefinition(definition_service_pb2.CreateDefinitionRequest(definition=definition))
