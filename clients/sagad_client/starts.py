"""Many sagas started over a stream that survives its breaks."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import NamedTuple, TypeAlias

import grpc
import grpc.aio

from sagad.v1.saga_pb2 import Saga
from sagad.v1.saga_service_pb2 import StartSagaRequest, StartSagasRequest, StartSagasResponse, StartSagasResult
from sagad_client.connection import Connection, is_broken_stream, may_pass
from sagad_client.errors import InvalidArgument, SagadError, Unavailable, from_rpc_error, from_status
from sagad_client.ids import new_saga_id

MAX_CONCURRENCY = 4096
"""Beyond it the server does not read on."""
_MAX_OPEN_BYTES = 8 * 1024 * 1024  # half of what the server bears
_MAX_REQUEST_BYTES = 1024 * 1024  # a valid one is far smaller; a message too large would end the stream for all
_MAX_MESSAGE_SAGAS = 64
_MESSAGE_BYTES = 512 * 1024  # a message is closed when it has so many: with its last saga at most 1.5 MiB of the 4
_TURN = 64  # requests taken from a plain iterable before others get a turn

StartRequests: TypeAlias = Iterable[StartSagaRequest] | AsyncIterable[StartSagaRequest]
Call: TypeAlias = "grpc.aio.StreamStreamCall[StartSagasRequest, StartSagasResponse]"
Method: TypeAlias = "grpc.aio.StreamStreamMultiCallable[StartSagasRequest, StartSagasResponse]"


class Started(NamedTuple):
    """What has become of one request."""

    saga_id: str
    result: Saga | SagadError
    """The saga, without payloads, or why it was not started."""
    created: bool | None
    """False: the saga was there already. None: there is none, or an attempt whose answer was lost may have made it."""


class _Requested:
    """One request until its answer is yielded."""

    __slots__ = ("failures", "in_doubt", "request", "sent", "size")

    def __init__(self, request: StartSagaRequest) -> None:
        self.request = request
        self.size = request.ByteSize()
        self.failures = 0
        self.in_doubt = False
        """An earlier attempt may have started it."""
        self.sent = False
        """On the present stream, and not answered."""


class Starts:
    """Takes requests in one task and talks to the server in another; what they bring about is yielded by `run`."""

    def __init__(
        self,
        connection: Connection,
        method: Method,
        namespace: str,
        requests: StartRequests,
        concurrency: int,
        silence_s: float,
    ) -> None:
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"concurrency is 1-{MAX_CONCURRENCY:,}, not {concurrency}")
        self._connection = connection
        self._method = method
        self._namespace = namespace
        self._requests = requests
        self._concurrency = concurrency
        self._silence_s = silence_s
        self._unanswered: dict[str, _Requested] = {}
        self._ready: deque[_Requested] = deque()
        """Those of the unanswered that are to be sent now."""
        self._pauses: set[asyncio.TimerHandle] = set()
        self._answered: deque[tuple[_Requested, Started]] = deque()
        self._open_bytes = 0
        self._all_taken = False
        self._answers_since_break = False
        self._owed = 0
        """Sagas on the present stream that are not answered though nobody waits for their end."""
        self._patience = asyncio.timeout_at(None)
        """Of the present stream: it is over when answers are owed and none has come for `silence_s`."""
        self._news = asyncio.Event()
        """There is something to yield, or the talk has ended."""
        self._room = asyncio.Event()
        self._work = asyncio.Event()
        """There is something to send, or nothing will be any more."""

    async def run(self) -> AsyncGenerator[Started, None]:
        """The result of each request, once. Raises SagadError, and what taking the requests raises."""
        loop = asyncio.get_running_loop()
        taking, talking = loop.create_task(self._take()), loop.create_task(self._talk())
        talking.add_done_callback(lambda _: self._news.set())
        try:
            while self._answered or not talking.done():
                while self._answered:
                    requested, started = self._answered[0]
                    yield started
                    self._answered.popleft()
                    self._open_bytes -= requested.size
                    self._room.set()
                if not talking.done():
                    await self._news.wait()
                    self._news.clear()
            await talking
            await taking
        finally:
            taking.cancel()
            talking.cancel()
            for pause in self._pauses:
                pause.cancel()
            await asyncio.gather(taking, talking, return_exceptions=True)

    # -- taking

    async def _take(self) -> None:
        try:
            async with aclosing(_each(self._requests)) as requests:
                async for request in requests:
                    await self._add(request)
        finally:
            self._all_taken = True
            self._work.set()

    async def _add(self, given: StartSagaRequest) -> None:
        request = StartSagaRequest()
        request.CopyFrom(given)  # the caller may fill the same message again
        request.namespace = request.namespace or self._namespace
        if request.namespace != self._namespace:
            raise ValueError(
                f"the client is for namespace {self._namespace!r}, and a request for {request.namespace!r}"
            )
        request.saga_id = request.saga_id or new_saga_id()
        requested = _Requested(request)
        # An answer names its saga alone: the same id again waits for the answer to the one before.
        while self._is_full() or request.saga_id in self._unanswered:
            self._room.clear()
            await self._room.wait()
        self._open_bytes += requested.size
        self._unanswered[request.saga_id] = requested
        if requested.size > _MAX_REQUEST_BYTES:
            text = (
                f"the request has {requested.size:,} bytes; {_MAX_REQUEST_BYTES:,} is the most for a saga of a stream"
            )
            self._answer(requested, InvalidArgument(text, code=grpc.StatusCode.INVALID_ARGUMENT))
        else:
            self._make_ready(requested)

    def _is_full(self) -> bool:
        open_sagas = len(self._unanswered) + len(self._answered)
        return open_sagas >= self._concurrency or self._open_bytes >= _MAX_OPEN_BYTES

    def _make_ready(self, requested: _Requested) -> None:
        self._ready.append(requested)
        self._work.set()

    # -- talking

    async def _talk(self) -> None:
        """Opens streams until everything is answered. Raises SagadError: refused, or broken too often in a row."""
        backoff, failures = self._connection.backoff, 0
        while await self._has_work():
            error = await self._stream()
            if error is None:
                continue
            failures = 1 if self._answers_since_break else failures + 1
            self._answers_since_break = False
            if not is_broken_stream(error) or failures >= backoff.attempts:
                raise error
            await asyncio.sleep(backoff.pause_s(failures, error.retry_after_s, random.random))

    async def _has_work(self) -> bool:
        """Waits for something to send; false when there is nothing, and never will be."""
        while not self._ready and not self._is_over():
            self._work.clear()
            await self._work.wait()
        return bool(self._ready)

    def _is_over(self) -> bool:
        return self._all_taken and not self._unanswered

    async def _stream(self) -> SagadError | None:
        """One stream, to its end; returns what broke it. What it left unanswered is ready again."""
        call = self._method()
        self._owed, self._patience = 0, asyncio.timeout_at(None)
        try:
            async with self._patience, asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(call))
                error = await self._read(call)
                writing.cancel()
        except TimeoutError:
            text = f"the server has answered none of {self._owed:,} starts for {self._silence_s:g} s"
            error = Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)
        finally:
            call.cancel()
            for requested in self._unanswered.values():
                if requested.sent:
                    requested.sent, requested.in_doubt = False, True
                    self._make_ready(requested)
        return error

    async def _write(self, call: Call) -> None:
        try:
            while await self._has_work():
                await call.write(self._next_message())
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream has ended: reading tells why

    def _next_message(self) -> StartSagasRequest:
        message, size = StartSagasRequest(), 0
        while self._ready and len(message.sagas) < _MAX_MESSAGE_SAGAS and size < _MESSAGE_BYTES:
            requested = self._ready.popleft()
            requested.sent = True
            if not requested.request.wait:
                self._owed += 1
            message.sagas.append(requested.request)
            size += requested.size
        if self._patience.when() is None:
            self._be_patient()
        return message

    def _be_patient(self) -> None:
        """From now on."""
        if not self._patience.expired():
            over = asyncio.get_running_loop().time() + self._silence_s if self._owed else None
            self._patience.reschedule(over)

    async def _read(self, call: Call) -> SagadError | None:
        try:
            while isinstance(response := await call.read(), StartSagasResponse):  # else it is the end
                for result in response.results:
                    self._receive(result)
                self._be_patient()
        except grpc.aio.AioRpcError as rpc_error:
            return from_rpc_error(rpc_error)
        if self._is_over():
            return None
        text = "the server has ended the stream before everything was answered"
        return Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)

    def _receive(self, result: StartSagasResult) -> None:
        requested = self._unanswered.get(result.saga_id)
        if requested is None or not requested.sent:
            return
        self._answers_since_break = True
        if not requested.request.wait:
            self._owed -= 1
        if result.WhichOneof("result") == "saga":
            saga = Saga()
            saga.CopyFrom(result.saga)  # a part of a message keeps all of it in memory
            self._answer(requested, saga, created=result.created or (None if requested.in_doubt else False))
            return
        error = from_status(result.error)
        requested.sent = False
        requested.in_doubt |= isinstance(error, Unavailable)
        requested.failures += 1
        if requested.failures >= self._connection.backoff.attempts or not may_pass(error):
            self._answer(requested, error)
        else:
            self._send_later(requested, error)

    def _send_later(self, requested: _Requested, error: SagadError) -> None:
        pause_s = self._connection.backoff.pause_s(requested.failures, error.retry_after_s, random.random)
        if pause_s >= self._connection.timeout_s:
            self._answer(requested, error)
            return

        def over() -> None:
            self._pauses.discard(pause)
            self._make_ready(requested)

        pause = asyncio.get_running_loop().call_later(pause_s, over)
        self._pauses.add(pause)

    def _answer(self, requested: _Requested, result: Saga | SagadError, *, created: bool | None = None) -> None:
        saga_id = requested.request.saga_id
        del self._unanswered[saga_id]
        self._answered.append((requested, Started(saga_id, result, created)))
        for event in (self._news, self._room, self._work):
            event.set()


async def _each(requests: StartRequests) -> AsyncGenerator[StartSagaRequest, None]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
        return
    for index, request in enumerate(requests):
        if index % _TURN == _TURN - 1:
            await asyncio.sleep(0)
        yield request
