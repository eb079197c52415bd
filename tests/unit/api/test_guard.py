"""What the guard makes of a call that ends under it."""

from typing import Any
from uuid import UUID

import grpc
import grpc.aio
from structlog.testing import capture_logs

from sagad_server.api.interceptor import Guard, Metadata

METHOD = "test.Service/Ask"


class Nobody:
    """Asks no other node."""

    async def forward(
        self, owner: UUID, method: str, request: bytes, metadata: Metadata, timeout_s: float | None
    ) -> bytes:
        raise NotImplementedError


class Counted:
    def __init__(self) -> None:
        self.codes: list[tuple[str, str]] = []

    def on_request(self, method: str, code: str, seconds: float | None) -> None:
        self.codes.append((method, code))


async def ask(request: bytes, context: Any) -> None:
    """As gRPC does where it writes to a client that has just left."""
    raise grpc.aio.InternalError('Failed "execute_batch"')


async def test_a_client_that_leaves_while_it_is_told_is_no_fault_of_sagad() -> None:
    counted = Counted()
    server = grpc.aio.server(interceptors=[Guard(counted, Nobody())])
    handlers = {"Ask": grpc.unary_stream_rpc_method_handler(ask, bytes, bytes)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with capture_logs() as logs:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream(f"/{METHOD}")(b"")
            assert await call.code() is not grpc.StatusCode.OK
    await server.stop(None)
    assert counted.codes == [(METHOD, "CANCELLED")]
    assert logs == []
