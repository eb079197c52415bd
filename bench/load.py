"""The load: clients that each start a saga, wait for its end, and start the next."""

import asyncio
import itertools
import json
import os
import time
from collections.abc import Awaitable, Callable
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

ORDER = {"sku": "abc", "qty": 2, "order": "o-1234567", "amount": 1299}
SAGA_TIMEOUT_S = 60.0

app = App(name="load", help="Starts sagas for some seconds and prints one line of JSON.")


def floor_start(channel: grpc.aio.Channel) -> Start:
    stub: floor_pb2_grpc.CoordinatorAsyncStub = floor_pb2_grpc.CoordinatorStub(channel)
    order = json.dumps(ORDER).encode()

    async def start(saga_id: str) -> None:
        await stub.Start(floor_pb2.StartRequest(saga_id=saga_id, input=order), timeout=SAGA_TIMEOUT_S)

    return start


def sagad_start(channel: grpc.aio.Channel, definition_id: str, end: saga_pb2.SagaState.ValueType) -> Start:
    stub: rpc.SagaServiceAsyncStub = rpc.SagaServiceStub(channel)
    order = common_pb2.Payload(json=json_format.ParseDict(ORDER, struct_pb2.Value()))

    async def start(saga_id: str) -> None:
        request = pb.StartSagaRequest(saga_id=saga_id, definition_id=definition_id, input=order, wait=True)
        response = await stub.StartSaga(request, timeout=SAGA_TIMEOUT_S)
        if response.saga.state != end:
            state = saga_pb2.SagaState.Name(response.saga.state)
            raise RuntimeError(f"saga {saga_id} is {state}, not {saga_pb2.SagaState.Name(end)}")

    return start


async def run_clients(start: Start, clients: int, seconds: float) -> dict[str, float]:
    """Returns how many sagas have ended, how many a second, and the latencies of one."""
    run, numbers = os.urandom(4).hex(), itertools.count()
    latencies: list[float] = []
    began = time.monotonic()

    async def client() -> None:
        while (now := time.monotonic()) - began < seconds:
            await start(f"{run}-{next(numbers):012d}")
            latencies.append(time.monotonic() - now)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    took = time.monotonic() - began
    latencies.sort()
    return {
        "sagas": len(latencies),
        "per_s": len(latencies) / took,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
    }


async def run(target: Literal["floor", "sagad"], port: int, clients: int, seconds: float, refuse: bool) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        if target == "floor":
            start = floor_start(channel)
        elif refuse:
            start = sagad_start(channel, "bench-refused", saga_pb2.SAGA_STATE_COMPENSATED)
        else:
            start = sagad_start(channel, "bench", saga_pb2.SAGA_STATE_SUCCEEDED)
        print(json.dumps(await run_clients(start, clients, seconds)))


@app.default
def main(target: Literal["floor", "sagad"], *, port: int, clients: int, seconds: float, refuse: bool = False) -> None:
    uvloop.run(run(target, port, clients, seconds, refuse))


if __name__ == "__main__":
    app()
