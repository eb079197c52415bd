"""What stands around every call: it decodes the request, notes the caller, counts the end, and maps errors."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from sagad_server.api.errors import Refusal, refusal, unexpected
from sagad_server.domain.errors import Elsewhere, InvalidArgument, SagadError

actor: ContextVar[str] = ContextVar("actor", default="")
"""Who makes the current call: the address it comes from, such as `ipv4:127.0.0.1:50612`."""

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic for type checkers only

FORWARDED = "sagad-forwarded"
"""Metadata of a call that another node has passed on: by whom it was made."""

Metadata = tuple[tuple[str, str], ...]
Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Awaitable[Any]]


class RequestObserver(Protocol):
    """Hears of each request that has ended."""

    def on_request(self, method: str, code: str, seconds: float | None) -> None:
        """`method` as in `sagad.v1.SagaService/StartSaga`; `code` is the name of a gRPC code, `OK` or another;
        `seconds` is None where it was refused unread."""


class Forwarder(Protocol):
    """Asks another node in this one's place."""

    async def forward(
        self, owner: UUID, method: str, request: bytes, metadata: Metadata, timeout_s: float | None
    ) -> bytes:
        """Its serialized answer. Raises grpc.aio.AioRpcError, or Elsewhere if nobody knows how to reach it."""


class Guard(grpc.aio.ServerInterceptor):
    """Guards all methods but those of gRPC's own services that take streams. Handlers are wrapped once, at the first
    call of each.

    A request about a saga that another node drives is passed on to that node, once.
    """

    def __init__(self, observer: RequestObserver, forwarder: Forwarder) -> None:
        self._observer = observer
        self._forwarder = forwarder
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        method = handler_call_details.method
        known = self._handlers.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or (handler.request_streaming and not asyncio.iscoroutinefunction(handler.stream_stream)):
            return handler
        guarded = self._handlers[method] = self._guarded(method.removeprefix("/"), handler)
        return guarded

    def _guarded(self, method: str, handler: "Handler") -> "Handler":
        """The same handler without its deserializer: what is no message is refused here, and not by gRPC."""
        decode = handler.request_deserializer
        assert decode is not None, method
        encode: Any = handler.response_serializer
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._call(method, _stream(handler.stream_stream, decode), streams=True), None, encode
            )
        if handler.response_streaming:
            stream: Any = handler.unary_stream
            assert asyncio.iscoroutinefunction(stream), f"{method} is to write to the context, and to yield nothing"
            return grpc.unary_stream_rpc_method_handler(
                self._call(method, self._ask(method, stream, decode), streams=True),
                None,
                lambda answer: _encoded(answer, encode),
            )
        call = self._call(method, self._ask(method, handler.unary_unary, decode))
        return grpc.unary_unary_rpc_method_handler(call, None, lambda answer: _encoded(answer, encode))

    def _call(self, method: str, behavior: Behavior, *, streams: bool = False) -> Behavior:
        on_request = self._observer.on_request

        async def call(request: Any, context: Context) -> Any:
            began = time.perf_counter()
            code = "OK"
            try:
                actor.set(_forwarded(context) or context.peer())  # now: asked after the call's end, gRPC crashes
                return await behavior(request, context)
            except asyncio.CancelledError:  # the client has left, or its deadline has: what it asked for goes on
                code = "DEADLINE_EXCEEDED" if _is_late(context) else "CANCELLED"
                raise
            except grpc.aio.AioRpcError as error:  # the other node's answer
                code = error.code().name
                trailers = tuple(error.trailing_metadata() or ())
                await context.abort(error.code(), error.details() or "", trailers)
            except Exception as error:
                if streams and isinstance(error, grpc.aio.InternalError):  # it can write no more: the client has left
                    code = "CANCELLED"
                    raise
                refused = _refusal(method, error)
                code = refused.code.name
                await context.abort(refused.code, refused.message, refused.trailers)
            finally:
                on_request(method, code, time.perf_counter() - began)

        return call

    def _ask(self, method: str, behavior: Any, decode: Callable[[bytes], Any]) -> Behavior:
        """With one request, which another node may have to answer."""

        async def ask(request: bytes, context: Context) -> Any:
            try:
                return await behavior(decode(request), context)
            except Elsewhere as elsewhere:
                if elsewhere.owner is None or _forwarded(context):
                    raise
                metadata = ((FORWARDED, actor.get()),)
                return await self._forwarder.forward(
                    elsewhere.owner, method, request, metadata, context.time_remaining()
                )

        return ask


def _stream(behavior: Any, decode: Callable[[bytes], Any]) -> Behavior:
    """With a stream of requests."""

    async def run(requests: AsyncIterable[bytes], context: Context) -> Any:
        return await behavior(_decoded(requests, decode), context)

    return run


async def _decoded(requests: AsyncIterable[bytes], decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield decode(request)


def _forwarded(context: Context) -> str:
    """Who made the call, where another node has passed it on."""
    for key, value in context.invocation_metadata() or ():
        if key == FORWARDED and isinstance(value, str):
            return value
    return ""


def _encoded(answer: Any, encode: Callable[[Any], bytes]) -> bytes:
    """What another node has answered is encoded already, and so is what many are told."""
    return answer if isinstance(answer, bytes) else encode(answer)


def _refusal(method: str, error: Exception) -> Refusal:
    if isinstance(error, SagadError):
        return refusal(error)
    if isinstance(error, DecodeError):
        name = method.rpartition("/")[2]
        return refusal(
            InvalidArgument(f"the request is not a valid {name}Request: {error}", reason="MALFORMED_REQUEST")
        )
    return unexpected(method, error)


def _is_late(context: Context) -> bool:
    remaining_s = context.time_remaining()
    return remaining_s is not None and remaining_s <= 0
