"""Watches that survive broken streams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from sagad.v1.saga_service_pb2 import (
    WatchedEvent,
    WatchSagaRequest,
    WatchSagaResponse,
    WatchSagasRequest,
    WatchSagasResponse,
)
from sagad_client.connection import Connection, is_broken_stream
from sagad_client.errors import SagadError, Unavailable, from_rpc_error

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


async def watch_saga(
    connection: Connection,
    method: grpc.aio.UnaryStreamMultiCallable[WatchSagaRequest, WatchSagaResponse],
    request: WatchSagaRequest,
    *,
    silence_s: float,
) -> AsyncGenerator[WatchSagaResponse, None]:
    """Follow a saga from `request.after_revision` until the server ends the stream, without a gap and without a repeat.

    A stream that breaks, or brings nothing for `silence_s` (the server sends heartbeats in between), is opened again
    after the last revision seen. Heartbeats are not passed on.

    Raises:
        SagadError: the watch was refused, or broke `backoff.attempts` times in a row without a single message.
    """

    def goes_on(attempt: WatchSagaRequest, message: WatchSagaResponse) -> None:
        attempt.after_revision = max(attempt.after_revision, message.revision)

    async with aclosing(_messages(connection, method, request, goes_on, silence_s)) as messages:
        async for message in messages:
            if message.WhichOneof("update") != "heartbeat":
                yield message


async def watch_sagas(
    connection: Connection,
    method: grpc.aio.UnaryStreamMultiCallable[WatchSagasRequest, WatchSagasResponse],
    request: WatchSagasRequest,
    *,
    heartbeats: bool,
    silence_s: float,
) -> AsyncGenerator[WatchedEvent, None]:
    """The same for many sagas: from `request.resume_token`, for ever. Heartbeats are events that have only a token."""

    def goes_on(attempt: WatchSagasRequest, message: WatchSagasResponse) -> None:
        attempt.resume_token = message.resume_token

    async with aclosing(_messages(connection, method, request, goes_on, silence_s)) as messages:
        async for message in messages:
            for event in message.events:
                yield event
            if heartbeats and not message.events:
                yield WatchedEvent(resume_token=message.resume_token)


async def _messages(
    connection: Connection,
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
    request: Request,
    goes_on: Callable[[Request, Response], None],
    silence_s: float,
) -> AsyncGenerator[Response, None]:
    """What a stream brings until the server ends it. Where it breaks it is opened again, with the request as `goes_on`
    has left it."""
    attempt = type(request)()
    attempt.CopyFrom(request)
    failures = 0
    while True:
        call = method(attempt)
        try:
            while (message := await _next_message(call, silence_s)) is not None:
                failures = 0
                goes_on(attempt, message)
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


async def _next_message(call: grpc.aio.UnaryStreamCall[Request, Response], silence_s: float) -> Response | None:
    """The next message, or None at the end. Raises _BrokenStreamError or, where resuming cannot help, SagadError."""
    try:
        async with asyncio.timeout(silence_s):
            message = await call.read()
    except TimeoutError:
        text = f"the watch brought nothing for {silence_s:g} s, not even a heartbeat"
        raise _BrokenStreamError(Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)) from None
    except grpc.aio.AioRpcError as rpc_error:
        error = from_rpc_error(rpc_error)
        if is_broken_stream(error):
            raise _BrokenStreamError(error) from rpc_error
        raise error from rpc_error
    return None if message is grpc.aio.EOF else cast(Response, message)
