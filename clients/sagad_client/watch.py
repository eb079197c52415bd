"""A watch that survives broken streams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator

import grpc
import grpc.aio

from sagad.v1.saga_service_pb2 import WatchSagaRequest, WatchSagaResponse
from sagad_client.connection import Connection, may_pass
from sagad_client.errors import SagadError, Unavailable, from_rpc_error

_Method = grpc.aio.UnaryStreamMultiCallable[WatchSagaRequest, WatchSagaResponse]


async def watch_saga(
    connection: Connection, method: _Method, request: WatchSagaRequest, *, silence_s: float
) -> AsyncGenerator[WatchSagaResponse, None]:
    """Follow a saga from `request.after_revision` until the server ends the stream, without a gap and without a repeat.

    A stream that breaks, or brings nothing for `silence_s` (the server sends heartbeats in between), is opened again
    after the last revision seen. Heartbeats are not passed on.

    Raises:
        SagadError: the watch was refused, or broke `backoff.attempts` times in a row without a single message.
    """
    revision = request.after_revision
    failures = 0
    while True:
        attempt = WatchSagaRequest()
        attempt.CopyFrom(request)
        attempt.after_revision = revision
        call = method(attempt)
        try:
            while (message := await _next_message(call, silence_s)) is not None:
                failures = 0
                revision = max(revision, message.revision)
                if message.WhichOneof("update") != "heartbeat":
                    yield message
            return  # noqa: TRY300 (the server has ended the stream: there is nothing more to come)
        except _BrokenStreamError as broken:
            error = broken.error
        finally:
            call.cancel()
        failures += 1
        if failures >= connection.backoff.attempts:
            raise error
        await asyncio.sleep(connection.backoff.pause_s(failures, error.retry_after_s, random.random))


class _BrokenStreamError(Exception):
    """The stream has broken, and can be resumed."""

    def __init__(self, error: SagadError) -> None:
        super().__init__(str(error))
        self.error = error


async def _next_message(
    call: grpc.aio.UnaryStreamCall[WatchSagaRequest, WatchSagaResponse], silence_s: float
) -> WatchSagaResponse | None:
    """The next message, or None at the end. Raises _BrokenStreamError or, where resuming cannot help, SagadError."""
    try:
        async with asyncio.timeout(silence_s):
            message = await call.read()
    except TimeoutError:
        text = f"the watch brought nothing for {silence_s:g} s, not even a heartbeat"
        raise _BrokenStreamError(Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)) from None
    except grpc.aio.AioRpcError as rpc_error:
        error = from_rpc_error(rpc_error)
        if may_pass(error) or _is_transport_fault(error):
            raise _BrokenStreamError(error) from rpc_error
        raise error from rpc_error
    return message if isinstance(message, WatchSagaResponse) else None


def _is_transport_fault(error: SagadError) -> bool:
    """Whether something between here and sagad broke the stream: its own errors always have a reason."""
    return error.code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN} and not error.reason
