"""One session: many calls on one stream, each answered when its handler is done."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from sagad.v1 import common_pb2
from sagad.v1 import participant_service_pb2 as pb
from sagad_participant.batches import MAX_BATCH, BatchCall, handler_of, run_batch, takes_batches
from sagad_participant.errors import CallError
from sagad_participant.participant import Participant

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 256 * 1024
Write = Callable[[pb.SessionResponse], Awaitable[None]]


class Session:
    """Runs the calls of a stream side by side, at most `max_concurrency` at once.

    Answers go out without delay: what is ready while a frame is written goes with the next one.
    """

    def __init__(self, participant: Participant, write: Write, max_concurrency: int) -> None:
        self._participant = participant
        self._write = write
        self._max_concurrency = max_concurrency
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[pb.SessionCall, float]] = deque()
        """With the time on the loop's clock when each came."""
        self._running: set[asyncio.Task[None]] = set()
        self._handled = 0
        """Calls in these tasks."""
        self._answers: deque[pb.SessionAnswer] = deque()
        self._closing = False
        self._told = False
        self._ended = False
        self._changed = asyncio.Event()

    async def serve(self, requests: AsyncIterator[pb.SessionRequest]) -> None:
        """Until the coordinator has closed its side and everything is answered. Cancelled, it cancels the handlers."""
        await self._write(pb.SessionResponse())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send())
                async for request in requests:
                    now = self._loop.time()
                    self._waiting.extend((call, now) for call in request.calls)
                    self._start()
                self._ended = True
                self._changed.set()
        finally:
            self._waiting.clear()
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)

    def close(self) -> None:
        """Asks the coordinator to hand nothing more over on this stream, and to close its side."""
        self._closing = True
        self._changed.set()

    def _start(self) -> None:
        while self._waiting and self._handled < self._max_concurrency:
            calls = self._next_calls(self._max_concurrency - self._handled)
            self._handled += len(calls)
            self._running.add(self._loop.create_task(self._run(calls)))

    def _next_calls(self, room: int) -> "list[tuple[pb.SessionCall, float]]":
        """The first that waits, and where its handler takes many, others of it that wait: each key once."""
        first = self._waiting.popleft()
        handler = handler_of(_request(first[0]))
        if not takes_batches(self._participant, *handler):
            return [first]
        calls, keys, others = [first], {_request(first[0]).idempotency_key}, []
        most = min(room, MAX_BATCH)
        while self._waiting and len(calls) < most:
            one = self._waiting.popleft()
            request = _request(one[0])
            if handler_of(request) == handler and request.idempotency_key not in keys:
                keys.add(request.idempotency_key)
                calls.append(one)
            else:
                others.append(one)
        self._waiting.extendleft(reversed(others))
        return calls

    async def _run(self, calls: "list[tuple[pb.SessionCall, float]]") -> None:
        batch = [BatchCall(_request(call), call.metadata, _deadline(call, came_s)) for call, came_s in calls]
        try:
            results = await run_batch(self._participant, batch)
            self._answers.extend(_answer(call, result) for (call, _), result in zip(calls, results, strict=True))
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._running.discard(task)
            self._handled -= len(calls)
            self._start()
            self._changed.set()

    async def _send(self) -> None:
        while not (self._ended and not self._running and not self._waiting and not self._answers):
            await self._changed.wait()
            self._changed.clear()
            while self._answers or (self._closing and not self._told):
                response = pb.SessionResponse(closing=self._closing)
                self._told = self._closing
                self._fill(response)
                await self._write(response)

    def _fill(self, response: pb.SessionResponse) -> None:
        room = MAX_FRAME_BYTES
        while self._answers:
            room -= self._answers[0].ByteSize() + 8  # its own head
            if room < 0 and response.answers:
                return
            response.answers.append(self._answers.popleft())


def _request(call: pb.SessionCall) -> pb.StepRequest | pb.CompensateRequest:
    return call.step if call.HasField("step") else call.compensate


def _answer(call: pb.SessionCall, result: common_pb2.StepOutcome | CallError) -> pb.SessionAnswer:
    if not isinstance(result, CallError):
        return pb.SessionAnswer(call_id=call.call_id, outcome=result)
    failed = pb.SessionError(code=result.code.value[0], message=result.message)
    if result.retry_after_s is not None:
        failed.retry_after.FromNanoseconds(round(result.retry_after_s * 1e9))
    return pb.SessionAnswer(call_id=call.call_id, error=failed)


def _deadline(call: pb.SessionCall, came_s: float) -> float | None:
    """When the caller's time is over, which began when the call came."""
    request = _request(call)
    if not request.HasField("remaining_time"):
        return None
    return came_s + request.remaining_time.seconds + request.remaining_time.nanos / 1e9
