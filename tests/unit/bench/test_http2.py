"""Calls by bare frames, against a real server of gRPC's library."""

import asyncio
from collections import Counter
from typing import Any

import grpc
import grpc.aio

from bench.http2 import Calls

MANY = 300
REQUEST = b"x" * 1000  # together more than HTTP/2's first window


async def answer(request: bytes, context: Any) -> bytes:
    assert context.time_remaining() < 30
    if request == b"":
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("grpc-status-details-bin", b"why"),))
    if request == b"?":
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
    return request


async def test_every_call_is_told_its_end_and_whether_it_has_details() -> None:
    server = grpc.aio.server()
    handlers = {"Ask": grpc.unary_unary_rpc_method_handler(answer, bytes, bytes)}
    server.add_registered_method_handlers("test.Service", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    loop = asyncio.get_running_loop()
    transport, calls = await loop.create_connection(lambda: Calls("/test.Service/Ask", 30), "127.0.0.1", port)
    await calls.ready
    ends: Counter[tuple[int | None, bool]] = Counter()

    def ended(code: int | None, detailed: bool) -> None:
        ends[code, detailed] += 1

    for _ in range(MANY):
        calls.call(REQUEST, ended)
    calls.call(b"", ended)
    calls.call(b"?", ended)
    while calls.under_way:  # noqa: ASYNC110 - the test's own timeout bounds it
        await asyncio.sleep(0.005)
    assert ends == {(0, False): MANY, (8, True): 1, (5, False): 1}
    transport.close()
    await server.stop(None)
