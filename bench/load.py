"""The load: clients that each start a saga, wait for its end, and start the next."""

import asyncio
import itertools
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypeAlias

import grpc.aio
import uvloop
from cyclopts import App
from google.protobuf import json_format, struct_pb2

from bench import floor_pb2, floor_pb2_grpc
from sagad.v1 import common_pb2, saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1 import saga_service_pb2_grpc as rpc

Start: TypeAlias = Callable[[str], Awaitable[None]]
StartMany: TypeAlias = Callable[[AsyncIterator[list[str]]], AsyncIterator[list[str]]]
"""Takes ids of sagas to start, and gives those that have ended."""

ORDER = {"sku": "abc", "qty": 2, "order": "o-1234567", "amount": 1299}
SAGA_TIMEOUT_S = 60.0
MESSAGE_SAGAS = 64

app = App(name="load", help="Starts sagas for some seconds and prints one line of JSON.")


def floor_start(channel: grpc.aio.Channel) -> Start:
    stub: floor_pb2_grpc.CoordinatorAsyncStub = floor_pb2_grpc.CoordinatorStub(channel)
    order = json.dumps(ORDER).encode()

    async def start(saga_id: str) -> None:
        await stub.Start(floor_pb2.StartRequest(saga_id=saga_id, input=order), timeout=SAGA_TIMEOUT_S)

    return start


def floor_start_many(channel: grpc.aio.Channel) -> StartMany:
    stub: floor_pb2_grpc.CoordinatorAsyncStub = floor_pb2_grpc.CoordinatorStub(channel)
    order = json.dumps(ORDER).encode()

    async def start_many(batches: AsyncIterator[list[str]]) -> AsyncIterator[list[str]]:
        requests = (
            floor_pb2.StartRequest(saga_id=saga_id, input=order) async for saga_ids in batches for saga_id in saga_ids
        )
        async for response in stub.StartMany(requests):
            yield [response.saga_id]

    return start_many


class Sagad:
    """Starts sagas of one definition, and expects each to end in one state."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        definition_id: str,
        end: saga_pb2.SagaState.ValueType,
        watchers: int = 0,
        resources: int = 0,
    ) -> None:
        self._stub: rpc.SagaServiceAsyncStub = rpc.SagaServiceStub(channel)
        self._definition_id = definition_id
        self._end = end
        self._watchers = watchers
        self._resources = resources
        self._order = common_pb2.Payload(json=json_format.ParseDict(ORDER, struct_pb2.Value()))

    async def start(self, saga_id: str) -> None:
        response = await self._stub.StartSaga(self._request(saga_id), timeout=SAGA_TIMEOUT_S)
        self._check(response.saga)

    async def start_many(self, batches: AsyncIterator[list[str]]) -> AsyncIterator[list[str]]:
        requests = (
            pb.StartSagasRequest(sagas=[self._request(saga_id) for saga_id in saga_ids]) async for saga_ids in batches
        )
        async for response in self._stub.StartSagas(requests):
            for result in response.results:
                if result.HasField("error"):
                    raise RuntimeError(f"saga {result.saga_id} was not started: {result.error}")
                self._check(result.saga)
            yield [result.saga_id for result in response.results]

    def _request(self, saga_id: str) -> pb.StartSagaRequest:
        request = pb.StartSagaRequest(saga_id=saga_id, definition_id=self._definition_id, input=self._order, wait=True)
        if self._watchers:
            number = int(saga_id.rpartition("-")[2])
            request.labels["watcher"] = str(number % self._watchers)
        if self._resources:
            request.input.json.struct_value.fields["order"].string_value = f"o-{random.randrange(self._resources)}"
        return request

    def _check(self, saga: saga_pb2.Saga) -> None:
        if saga.state != self._end:
            state = saga_pb2.SagaState.Name(saga.state)
            raise RuntimeError(f"saga {saga.saga_id} is {state}, not {saga_pb2.SagaState.Name(self._end)}")


class Clock:
    """The ids of the sagas of one run, and how long each took."""

    def __init__(self, seconds: float) -> None:
        self._run = os.urandom(4).hex()
        self._numbers = itertools.count()
        self._began_s: dict[str, float] = {}
        self._latencies_s: list[float] = []
        self._since_s = time.monotonic()
        self._until_s = self._since_s + seconds

    @property
    def runs(self) -> bool:
        return time.monotonic() < self._until_s

    def begin(self) -> str:
        saga_id = f"{self._run}-{next(self._numbers):012d}"
        self._began_s[saga_id] = time.monotonic()
        return saga_id

    def end(self, saga_id: str) -> None:
        self._latencies_s.append(time.monotonic() - self._began_s.pop(saga_id))

    def figures(self) -> dict[str, float]:
        """How many sagas have ended, how many a second, and the latencies of one."""
        took_s, latencies_s = time.monotonic() - self._since_s, sorted(self._latencies_s)
        return {
            "sagas": len(latencies_s),
            "per_s": len(latencies_s) / took_s,
            "p50_ms": latencies_s[len(latencies_s) // 2] * 1e3,
            "p99_ms": latencies_s[int(len(latencies_s) * 0.99)] * 1e3,
        }


async def run_clients(start: Start, clients: int, clock: Clock) -> None:
    """Each starts a saga, waits for its end, and starts the next."""

    async def client() -> None:
        while clock.runs:
            saga_id = clock.begin()
            await start(saga_id)
            clock.end(saga_id)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())


async def run_stream(start_many: StartMany, clients: int, clock: Clock) -> None:
    """The same clients, whose starts go by one stream: those that are ready, together."""
    idle = asyncio.Semaphore(clients)

    async def batches() -> AsyncIterator[list[str]]:
        while clock.runs:
            await idle.acquire()
            batch = [clock.begin()]
            while len(batch) < MESSAGE_SAGAS and not idle.locked():
                await idle.acquire()
                batch.append(clock.begin())
            yield batch

    async for ended in start_many(batches()):
        for saga_id in ended:
            clock.end(saga_id)
            idle.release()


async def run(
    target: Literal["floor", "sagad"],
    port: int,
    clients: int,
    seconds: float,
    definition_id: str,
    stream: bool,
    watchers: int,
    resources: int,
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        start, start_many = starters(target, channel, definition_id, watchers, resources)
        clock = Clock(seconds)
        await (run_stream(start_many, clients, clock) if stream else run_clients(start, clients, clock))
        print(json.dumps(clock.figures()))


def starters(
    target: Literal["floor", "sagad"], channel: grpc.aio.Channel, definition_id: str, watchers: int, resources: int
) -> tuple[Start, StartMany]:
    if target == "floor":
        return floor_start(channel), floor_start_many(channel)
    refused = definition_id == "bench-refused"
    end = saga_pb2.SAGA_STATE_COMPENSATED if refused else saga_pb2.SAGA_STATE_SUCCEEDED
    sagad = Sagad(channel, definition_id, end, watchers, resources)
    return sagad.start, sagad.start_many


@app.default
def main(
    target: Literal["floor", "sagad"],
    *,
    port: int,
    clients: int,
    seconds: float,
    definition_id: str = "bench",
    stream: bool = False,
    watchers: int = 0,
    resources: int = 0,
) -> None:
    uvloop.run(run(target, port, clients, seconds, definition_id, stream, watchers, resources))


if __name__ == "__main__":
    app()
