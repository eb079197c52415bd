"""A participant that answers Describe with what is no DescribeResponse."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from support.transport_caller import Caller

from sagad.v1 import participant_service_pb2 as pb

DESCRIBE = "/sagad.v1.ParticipantService/Describe"


class Muddled(grpc.GenericRpcHandler):
    """Answers with bytes as they are."""

    def __init__(self) -> None:
        self.answer = b"\xff"
        self.asked = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(self.describe) if details.method == DESCRIBE else None

    async def describe(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.asked.set()
        return self.answer


@pytest.fixture
async def muddled() -> Muddled:
    return Muddled()


@pytest.fixture
async def caller(muddled: Muddled) -> AsyncIterator[Caller]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((muddled,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    caller = Caller(f"127.0.0.1:{port}")
    yield caller
    await caller.transport.close()
    await server.stop(0)


async def test_rubbish_is_told_of_as_such_and_does_not_stop_the_asking(muddled: Muddled, caller: Caller) -> None:
    said = await caller.transport.describe("peer")
    assert isinstance(said, str)
    assert "DescribeResponse" in said
    muddled.asked.clear()
    muddled.answer = pb.DescribeResponse(actions=["act"]).SerializeToString()
    await muddled.asked.wait()  # by nobody but the link itself
    described = await caller.transport.describe("peer")
    assert isinstance(described, pb.DescribeResponse)
