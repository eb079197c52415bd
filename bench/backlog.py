"""Sagas that nobody waits for: started over one stream, and looked for in the database."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import asyncpg
import grpc.aio
from google.protobuf import json_format, struct_pb2

from bench.load import MESSAGE_SAGAS, ORDER
from sagad.v1 import common_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1 import saga_service_pb2_grpc as rpc

Connection: TypeAlias = "asyncpg.Connection[Any]"

POLL_S = 0.1


async def start_all(port: int, definition_id: str, saga_ids: Sequence[str]) -> None:
    """Returns when all are durable. Raises RuntimeError if one is not started."""
    order = common_pb2.Payload(json=json_format.ParseDict(ORDER, struct_pb2.Value()))

    async def requests() -> AsyncIterator[pb.StartSagasRequest]:
        for first in range(0, len(saga_ids), MESSAGE_SAGAS):
            chunk = saga_ids[first : first + MESSAGE_SAGAS]
            yield pb.StartSagasRequest(
                sagas=[pb.StartSagaRequest(saga_id=one, definition_id=definition_id, input=order) for one in chunk]
            )

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: rpc.SagaServiceAsyncStub = rpc.SagaServiceStub(channel)
        async for response in stub.StartSagas(requests()):
            for result in response.results:
                if result.HasField("error"):
                    raise RuntimeError(f"saga {result.saga_id} was not started: {result.error}")


async def until_none(connection: Connection, sagas: str, within_s: float) -> None:
    """Returns when no saga fulfils the SQL condition `sagas`. Raises TimeoutError after `within_s`."""
    left = f"SELECT EXISTS (SELECT FROM sagad.saga WHERE {sagas})"
    async with asyncio.timeout(within_s):
        while await connection.fetchval(left):  # noqa: ASYNC110 - nothing but the table tells of it
            await asyncio.sleep(POLL_S)
