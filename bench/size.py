"""Size: what the ended sagas in the tables cost those that run and those that look."""

import random
import time
from collections.abc import Awaitable, Callable

import grpc.aio
from google.protobuf import timestamp_pb2

from bench.database import fresh_database
from bench.fill import fill
from bench.measure import WARM_UP_S, load
from bench.modes import Mode
from bench.report import percentile_ms
from bench.subjects import sagad
from sagad.v1 import common_pb2, saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1 import saga_service_pb2_grpc as rpc

MODE = Mode(clients=64)
READS = 200


async def size(dsn: str, sagas: int, seconds: float) -> dict[str, float | str]:
    """Throughput before and after the tables are filled, and the medians of reads, in ms."""
    async with fresh_database(dsn) as database, sagad(database, MODE) as running:
        await load(running, MODE, WARM_UP_S)
        empty = await load(running, MODE, seconds)
        await fill(database, running.port, sagas)
        await load(running, MODE, WARM_UP_S)
        full = await load(running, MODE, seconds)
        reads = await read(running.port, sagas)
    return {"ended": sagas, "per_s_empty": empty["per_s"], "per_s": full["per_s"], **reads}


async def read(port: int, sagas: int) -> dict[str, float]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: rpc.SagaServiceAsyncStub = rpc.SagaServiceStub(channel)

        async def get() -> None:
            await stub.GetSaga(pb.GetSagaRequest(saga_id=f"fill-{random.randrange(sagas):012d}"))

        medians = {"get_ms": await median_ms(get)}
        for name, saga_filter in filters(sagas).items():

            async def page(chosen: saga_pb2.SagaFilter = saga_filter) -> None:
                await stub.ListSagas(pb.ListSagasRequest(filter=chosen))

            medians[f"{name}_ms"] = await median_ms(page)
        return medians


def filters(sagas: int) -> dict[str, saga_pb2.SagaFilter]:
    hour_ago, minute_later = (timestamp_pb2.Timestamp(seconds=int(time.time()) - ago_s) for ago_s in (3600, 3540))
    failed = [common_pb2.FAILURE_CATEGORY_BUSINESS]
    return {
        "all": saga_pb2.SagaFilter(),
        "state": saga_pb2.SagaFilter(states=[saga_pb2.SAGA_STATE_COMPENSATED]),
        "definition": saga_pb2.SagaFilter(definition_id="bench-refused"),
        "order": saga_pb2.SagaFilter(labels={"order": str(sagas // 2)}),
        "region": saga_pb2.SagaFilter(labels={"region": "1"}),
        "no_region": saga_pb2.SagaFilter(labels={"region": "9"}),
        "create_time": saga_pb2.SagaFilter(create_time_max=hour_ago),
        "end_time": saga_pb2.SagaFilter(end_time_max=hour_ago),
        "end_minute": saga_pb2.SagaFilter(end_time_min=hour_ago, end_time_max=minute_later),
        "category": saga_pb2.SagaFilter(categories=failed),
        # Each of two things is of many, and both together are of none.
        "state_and_label": saga_pb2.SagaFilter(states=[saga_pb2.SAGA_STATE_COMPENSATED], labels={"shelf": "1"}),
        "definition_and_label": saga_pb2.SagaFilter(definition_id="bench-refused", labels={"shelf": "1"}),
        "definition_and_category": saga_pb2.SagaFilter(definition_id="bench", categories=failed),
    }


async def median_ms(read_once: Callable[[], Awaitable[None]]) -> float:
    took_s = []
    for _ in range(READS):
        began = time.monotonic()
        await read_once()
        took_s.append(time.monotonic() - began)
    return percentile_ms(sorted(took_s), 0.5)
