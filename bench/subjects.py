"""What is measured: the floor and sagad, each as a coordinator and a participant in processes of their own."""

import asyncio
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.request import urlopen

import grpc.aio
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from bench import floor_pb2, floor_pb2_grpc
from bench.modes import Mode
from bench.processes import PYTHON, READY_WITHIN_S, SAGAD, free_port, port_of, running
from sagad.v1 import definition_pb2, definition_service_pb2, definition_service_pb2_grpc


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
        options += ["--refuse"] * mode.refuse + ["--sessions"] * mode.sessions
        async with running(PYTHON, "-m", "bench.floor", "coordinator", *options) as coordinator:
            port = await port_of(coordinator)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub: floor_pb2_grpc.CoordinatorAsyncStub = floor_pb2_grpc.CoordinatorStub(channel)

                async def commits() -> int:
                    return (await stub.GetStats(floor_pb2.GetStatsRequest())).commits

                yield Running("floor", port, coordinator.pid, participant.pid, commits)


@asynccontextmanager
async def sagad(dsn: str, mode: Mode) -> AsyncIterator[Running]:
    """Runs sagad on an empty database, with the definitions `bench` and `bench-refused`; the load takes one."""
    with tempfile.TemporaryDirectory(prefix="sagad-bench-") as folder:
        log_path, port, http_port = Path(folder, "log"), free_port(), free_port()
        async with running(PYTHON, "-m", "bench.participant", *["--sessions"] * mode.sessions) as participant:
            config = {
                "grpc": {"address": f"127.0.0.1:{port}"},
                "http": {"address": f"127.0.0.1:{http_port}"},
                "postgres": {"dsn": dsn},
                "participants": {"bench": {"target": f"127.0.0.1:{await port_of(participant)}"}},
            }
            Path(folder, "sagad.yaml").write_text(yaml.safe_dump(config))
            with log_path.open("wb") as log:
                async with running(SAGAD, "serve", "--config", f"{folder}/sagad.yaml", log=log) as server:
                    try:
                        await prepare(server, port)
                    except (RuntimeError, grpc.aio.AioRpcError) as error:
                        error.add_note(log_path.read_text()[-4000:])
                        raise
                    yield Running("sagad", port, server.pid, participant.pid, lambda: committed(http_port))


async def prepare(server: Process, port: int) -> None:
    """Waits until sagad serves, and creates the definitions. Raises RuntimeError if it ends instead."""
    ended = asyncio.create_task(server.wait())
    ready = asyncio.create_task(create_definitions(port))
    await asyncio.wait((ended, ready), return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        ready.cancel()
        raise RuntimeError(f"sagad ended with {ended.result()} before it served")
    ended.cancel()
    ready.result()


async def create_definitions(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest()
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True, timeout=READY_WITHIN_S)
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        watch.cancel()
        stub: definition_service_pb2_grpc.DefinitionServiceAsyncStub
        stub = definition_service_pb2_grpc.DefinitionServiceStub(channel)
        for name, third in (("bench", "ship"), ("bench-refused", "refuse")):
            created = definition_service_pb2.CreateDefinitionRequest(definition=definition(name, third))
            await stub.CreateDefinition(created)


def definition(definition_id: str, third_action: str) -> definition_pb2.Definition:
    """Three steps in a chain, with default retries and no expressions."""
    actions = (("reserve", "release"), ("charge", "refund"), (third_action, "recall"))
    return definition_pb2.Definition(
        definition_id=definition_id,
        version="1.0.0",
        name=definition_id,
        description="three steps at one participant, for the bench",
        steps=[
            definition_pb2.StepDefinition(
                step_id=action,
                name=action,
                description=f"asks the participant to {action}",
                participant="bench",
                action=action,
                compensation=compensation,
            )
            for action, compensation in actions
        ],
    )


async def committed(http_port: int) -> int:
    """The writer's commits, from sagad's metrics."""
    text = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=10).read().decode())
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return int(sum(sample.value for sample in samples if sample.name == "sagad_commits_total"))
