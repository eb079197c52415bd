"""Takes in calls of the busiest methods side by side.

gRPC's library for Python asks its core for one call of a method at a time, and for the next one about five turns of the
loop later. Where turns are long, calls wait in the core while the node has time for them: with 256 clients four fifths
of a saga's time. So several are asked for at once here, by the same parts as the library does it. They are not public:
with a version of the library that this was not tried with, the library's one request goes on alone.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # not public, as said above

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic for type checkers only

log = structlog.get_logger(__name__)

TRIED = "1.85."
"""The versions of grpcio."""
_AT_ONCE = 8
_PAUSE_S = 0.1


class _Resolver:
    """What the library looks a call's handler up in."""

    def __init__(self, handler: "Handler") -> None:
        self._handler = handler

    def resolve_handler(self, *_: object) -> "Handler":
        return self._handler


async def take_in(
    server: grpc.aio.Server, interceptor: grpc.aio.ServerInterceptor, handlers: "Mapping[str, Handler]"
) -> None:
    """Returns when the server has stopped. Not to be cancelled before: a call that came then would never be answered.

    `handlers` are of methods that are registered with the server, by name, such as /sagad.v1.SagaService/StartSaga.
    """
    if not grpc.__version__.startswith(TRIED):
        log.info("calls are taken in one by one", grpcio=grpc.__version__, tried_with=f"{TRIED}*")
        return
    async with asyncio.TaskGroup() as tasks:
        for method, handler in handlers.items():
            for _ in range(_AT_ONCE):
                tasks.create_task(_take_in(server, interceptor, method, _Resolver(handler)))


async def _take_in(
    server: grpc.aio.Server, interceptor: grpc.aio.ServerInterceptor, method: str, resolver: _Resolver
) -> None:
    loop = asyncio.get_running_loop()
    core: Any = server._server  # type: ignore[attr-defined]  # not public, as said above
    calls: set[asyncio.Task[None]] = set()
    while True:
        try:
            call = await core._request_registered_call(method.encode())
        except cygrpc._RequestCallError:  # so the core answers when the server stops, and perhaps now and then
            if not core.is_running():
                return
            await asyncio.sleep(_PAUSE_S)
            continue
        except Exception:  # what is not public may fail in any way, and the library's own request goes on
            log.exception("calls are taken in one by one", method=method)
            return
        handling = cygrpc._handle_rpc(method, resolver, (interceptor,), call, loop, False)
        task = loop.create_task(cygrpc._schedule_rpc_coro(handling, call, loop, method))
        calls.add(task)
        task.add_done_callback(calls.discard)
