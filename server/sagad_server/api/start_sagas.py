"""One stream of StartSagas: many sagas started side by side, each answered once, in any order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from typing import Any, TypeAlias
from uuid import UUID

import grpc.aio
from google.rpc import status_pb2

from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.saga_pb2 import Saga
from sagad_server.api.conversions import saga_message
from sagad_server.api.errors import read_refusal, read_retry_after_s, read_status, refusal, unexpected
from sagad_server.api.interceptor import FORWARDED, Forwarder, actor
from sagad_server.api.start_command import start_command
from sagad_server.api.start_limits import StartLimits
from sagad_server.api.steering import DEFAULT_NAMESPACE
from sagad_server.domain.errors import Elsewhere, InvalidArgument, SagadError, Unavailable, Violation
from sagad_server.domain.validation import ValidationLimits, start_violations
from sagad_server.engine.active import ActiveSaga
from sagad_server.engine.engine import RETRY_AFTER_MS
from sagad_server.engine.ports import Snapshot, Tombstone
from sagad_server.engine.starts import Start, Starts, forget

MAX_OPEN = 4096
"""Sagas of a stream that are not answered yet. Beyond it, and beyond the next one, the stream is not read."""
MAX_OPEN_BYTES = 16 * 1024 * 1024
"""Of their requests."""
_MAX_RESULTS = 256
_MAX_RESPONSE_BYTES = 1024 * 1024  # with one more result, which has at most about 1.5: gRPC clients take 4 MiB
_TURN = 64
"""Sagas that are started before others get a turn."""
_LOOK_AGAIN_S = 0.05
_COME_AGAIN_S = 1.0
"""The least; nodes say so themselves, up to twice as long and by chance."""
_METHOD = "sagad.v1.SagaService/StartSagas"
_START = "sagad.v1.SagaService/StartSaga"

Send: TypeAlias = Callable[[pb.StartSagasResponse], Awaitable[object]]
"""Returns when the client has room for more."""
Answer: TypeAlias = Snapshot | Tombstone | Saga | SagadError | status_pb2.Status


class StartSagas:
    """Reads and starts in one task, and answers in another; there is none for a saga."""

    def __init__(
        self,
        starts: Starts,
        limits: ValidationLimits,
        start_limits: StartLimits,
        forwarder: Forwarder,
        send: Send,
    ) -> None:
        self._starts = starts
        self._limits = limits
        self._start_limits = start_limits
        self._forwarder = forwarder
        self._send = send
        self._open: set[_Requested] = set()
        self._open_bytes = 0
        self._answered: deque[_Requested] = deque()
        self._news = asyncio.Event()
        """Something is to be told, or reading has ended."""
        self._room = asyncio.Event()
        self._stopping = False
        self._left = False
        self._asking: set[asyncio.Task[None]] = set()

    async def run(self, requests: AsyncIterable[pb.StartSagasRequest]) -> None:
        """Returns when the client has closed its side and all is answered.

        Raises Unavailable when the node stops, and what reading raises.
        """
        reading = asyncio.get_running_loop().create_task(self._read(requests))
        reading.add_done_callback(lambda _: self._news.set())
        try:
            while self._open or not (reading.done() or self._stopping):
                await self._news.wait()
                self._news.clear()
                while self._answered:
                    await self._tell()
                if reading.done():
                    reading.result()
            if self._stopping:
                raise stopping()
        finally:
            self._leave()

    def stop(self) -> None:
        """The node drains: starts nothing more, and ends once everything is answered that was started."""
        self._stopping = True
        self._news.set()
        self._room.set()

    def _leave(self) -> None:
        """What was started goes on. The task that reads ends with the call: cancelling gRPC's read is not safe."""
        self._left = True
        self.stop()
        for task in self._asking:
            task.cancel()
        for requested in self._open:
            requested.leave()

    # -- reading

    async def _read(self, requests: AsyncIterable[pb.StartSagasRequest]) -> None:
        message = 0
        async for request in requests:
            message += 1
            for index, saga in enumerate(request.sagas):
                if index % _TURN == _TURN - 1:
                    await asyncio.sleep(0)
                await self._has_room()
                if self._stopping:
                    return
                await self._start(saga, f"sagas[{index}] of message {message}")
            if self._stopping:  # perhaps the call has ended meanwhile, and reading is an error
                return

    async def _has_room(self) -> None:
        while not self._stopping and (len(self._open) >= MAX_OPEN or self._open_bytes >= MAX_OPEN_BYTES):
            self._room.clear()
            await self._room.wait()
        # A stream slows down where a single start is refused.
        admission = self._starts.admission
        while not self._stopping and admission.overloaded and not admission.may_try():  # noqa: ASYNC110 - time tells
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _start(self, saga: pb.StartSagaRequest, place: str) -> None:
        # A copy, since a part of a message keeps all of it in memory, and the saga's input may be kept for months.
        request = pb.StartSagaRequest()
        request.CopyFrom(saga)
        requested = _Requested(self, request)
        self._open.add(requested)
        self._open_bytes += requested.size
        wait = request.wait
        try:
            command = self._command(request, place)
            await self._start_limits.wait(command, lambda: self._stopping)
            if self._stopping:
                requested.done(stopping())
            else:
                requested.active = await self._starts.begin(command, requested.done, wait=wait)
                requested.made = command.made
        except SagadError as error:
            requested.done(error)
        except Exception as error:  # noqa: BLE001 - one bad saga must not stop the others
            requested.answer(unexpected(_METHOD, error).status)
        if self._left:
            requested.leave()

    def _command(self, request: pb.StartSagaRequest, place: str) -> Start:
        if request.saga_id:
            return start_command(request, request.saga_id, self._limits)
        missing = f"is missing in {place}: a stream needs it, to tell which saga an answer is about"
        raise InvalidArgument.of([Violation("saga_id", missing), *start_violations(request, self._limits)])

    # -- answering

    def answered(self, requested: "_Requested") -> None:
        """It has its answer, which is to be told."""
        self._answered.append(requested)
        self._news.set()

    async def _tell(self) -> None:
        """One message of what there is to tell. What is told of is open until the client has room for it."""
        response = pb.StartSagasResponse()
        told: list[_Requested] = []
        size = 0
        while self._answered and len(told) < _MAX_RESULTS and size < _MAX_RESPONSE_BYTES:
            requested = self._answered.popleft()
            size += requested.fill(response.results.add())
            told.append(requested)
        await self._send(response)
        for requested in told:
            self._open.remove(requested)
            self._open_bytes -= requested.size
        self._room.set()

    def ask(self, requested: "_Requested", owner: UUID) -> None:
        """Another node drives the saga, and knows its end first."""
        self._spawn(self._ask(requested, owner))

    def await_end(self, requested: "_Requested") -> None:
        """The saga sleeps: it is in no node's memory."""
        self._spawn(self._await_end(requested))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _await_end(self, requested: "_Requested") -> None:
        try:
            requested.answer(await self._starts.ends.of(requested.key))
        except SagadError as error:
            requested.answer(error)
        except Exception as error:  # noqa: BLE001 - as in _start
            requested.answer(unexpected(_METHOD, error).status)

    async def _ask(self, requested: "_Requested", owner: UUID) -> None:
        metadata = ((FORWARDED, actor.get()),)
        while requested.result is None:
            try:
                answer = await self._forwarder.forward(owner, _START, requested.message, metadata, None)
                requested.answer(pb.StartSagaResponse.FromString(answer).saga)
            except SagadError as error:
                requested.answer(error)
            except grpc.aio.AioRpcError as error:
                if read_refusal(error)[0] == "OVERLOADED":  # a stream is not refused, wherever its sagas are
                    await asyncio.sleep(max(_COME_AGAIN_S, read_retry_after_s(error)))
                    if self._stopping:
                        requested.answer(stopping())
                elif error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:  # the wait goes on
                    requested.answer(read_status(error))
            except Exception as error:  # noqa: BLE001 - as above
                requested.answer(unexpected(_METHOD, error).status)


class _Requested:
    """One saga of the stream, until its answer is told."""

    __slots__ = ("_starting", "active", "key", "made", "message", "result", "size")

    def __init__(self, starting: StartSagas, request: pb.StartSagaRequest) -> None:
        self._starting = starting
        self.key = request.namespace or DEFAULT_NAMESPACE, request.saga_id
        self.size = request.ByteSize()
        self.message = request.SerializeToString() if request.wait else b""
        """For the node that drives the saga, should it be another one."""
        self.active: ActiveSaga | None = None
        self.made: UUID | None = None
        """See `Start`."""
        self.result: Answer | None = None

    def done(self, result: Snapshot | Tombstone | SagadError) -> None:
        """What the engine tells, perhaps more than once: the first counts."""
        if self.result is None and self.message and isinstance(result, Elsewhere) and result.owner is not None:
            self._starting.ask(self, result.owner)
        elif self.result is None and self.message and isinstance(result, Snapshot) and not result.saga.at_rest:
            self._starting.await_end(self)
        else:
            self.answer(result)

    def answer(self, result: Answer) -> None:
        if self.result is None:
            self.result = result
            self._starting.answered(self)

    def leave(self) -> None:
        if self.active is not None:
            forget(self.active, self.done)

    def fill(self, result: pb.StartSagasResult) -> int:
        """Writes the answer down, and returns how many bytes it has."""
        result.namespace, result.saga_id = self.key
        try:
            _fill(result, self.result)
            result.created = self.made is not None and result.saga.uid == str(self.made)
        except Exception as error:  # noqa: BLE001 - a saga that cannot be shown must not stop the others
            result.error.CopyFrom(unexpected(_METHOD, error).status)
        return result.ByteSize()


def _fill(result: pb.StartSagasResult, answer: Answer | None) -> None:
    if isinstance(answer, Snapshot | Tombstone):
        result.saga.CopyFrom(saga_message(answer))
    elif isinstance(answer, SagadError):
        result.error.CopyFrom(refusal(answer).status)
    elif isinstance(answer, Saga):
        result.saga.CopyFrom(answer)
    else:
        assert answer is not None, "told before it was answered"
        result.error.CopyFrom(answer)


def stopping() -> Unavailable:
    """What a stream ends with when the node stops."""
    return Unavailable(
        "this node is shutting down: send again what was not answered",
        reason="DRAINING",
        retry_after_ms=RETRY_AFTER_MS,
    )
