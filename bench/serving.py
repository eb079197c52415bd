"""What every server of the bench does."""

from collections.abc import Callable

import grpc.aio


async def serve(add_servicers: Callable[[grpc.aio.Server], None]) -> None:
    """Serves on a free port of loopback, for ever, and prints `ready PORT` once it does."""
    server = grpc.aio.server()
    add_servicers(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("ready", port, flush=True)
    await server.wait_for_termination()
