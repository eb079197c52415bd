"""Takes in calls of the busiest methods side by side.

gRPC's library for Python asks its core for one call of a method at a time, and for the next one about five turns of the
loop later. Where turns are long, calls wait in the core while the node has time for them: with 256 clients four fifths
of a saga's time. So several are asked for at once here, by the same parts as the library does it. And what a gate
refuses is answered unread, for a third of what a refusal costs by the library; if the core had to refuse it, it would
hear neither a reason nor a time to come again. These parts are not public: with a version of the library that this was
not tried with, the library's one request goes on alone.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # not public, as said above

from sagad_server.api.errors import Refusal

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic for type checkers only

log = structlog.get_logger(__name__)

TRIED = "1.85."
"""The versions of grpcio."""
_AT_ONCE = 8
_AT_ONCE_GATED = 128
"""So many at each turn of the loop that the core, whose refusals have no reason, has none to refuse."""
_PAUSE_S = 0.1


class Gate(Protocol):
    """What a method's calls have to pass before they are read."""

    def refusal(self) -> Refusal | None:
        """Why the next call is not let in."""

    def enter(self) -> "Callable[[asyncio.Task[None]], object]":
        """The next call is let in; returns what is to hear of its end. The call gets a copy of the context that this is
        called in."""


class _Resolver:
    """What the library looks a call's handler up in."""

    def __init__(self, handler: "Handler") -> None:
        self._handler = handler

    def resolve_handler(self, *_: object) -> "Handler":
        return self._handler


async def take_in(
    server: grpc.aio.Server,
    interceptor: grpc.aio.ServerInterceptor,
    handlers: "Mapping[str, Handler]",
    gates: Mapping[str, Gate],
) -> None:
    """Returns when the server has stopped. Not to be cancelled before: a call that came then would never be answered.

    `handlers` are of methods that are registered with the server, by name, such as /sagad.v1.SagaService/StartSaga; of
    those that have one, `gates` are asked about each call.
    """
    if not grpc.__version__.startswith(TRIED):
        log.info("calls are taken in one by one", grpcio=grpc.__version__, tried_with=f"{TRIED}*")
        return
    async with asyncio.TaskGroup() as tasks:
        for method, handler in handlers.items():
            gate = gates.get(method)
            for _ in range(_AT_ONCE if gate is None else _AT_ONCE_GATED):
                tasks.create_task(_take_in(server, interceptor, method, _Resolver(handler), gate))


async def _take_in(
    server: grpc.aio.Server,
    interceptor: grpc.aio.ServerInterceptor,
    method: str,
    resolver: _Resolver,
    gate: Gate | None,
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
        refusal = None if gate is None else gate.refusal()
        if refusal is not None:
            task = loop.create_task(_refuse(call, refusal, loop))
        else:
            ended = None if gate is None else gate.enter()
            handling = cygrpc._handle_rpc(method, resolver, (interceptor,), call, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(handling, call, loop, method))
            if ended is not None:
                task.add_done_callback(ended)
        calls.add(task)
        task.add_done_callback(calls.discard)
        del call, task  # or they live until this one's next call


async def _refuse(call: Any, refusal: Refusal, loop: asyncio.AbstractEventLoop) -> None:
    """Ends a call, of which nothing is read, in one operation."""
    operations = (
        cygrpc.SendInitialMetadataOperation((), 0),
        cygrpc.ReceiveCloseOnServerOperation(0),
        cygrpc.SendStatusFromServerOperation(refusal.trailers, refusal.code.value[0], refusal.message, 0),
    )
    with contextlib.suppress(cygrpc.ExecuteBatchError):  # the client has left
        await cygrpc.execute_batch(call, operations, loop)
