"""One session: many calls on one stream, each answered when its handler is done."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from sagad.v1 import participant_service_pb2 as pb
from sagad_participant.errors import CallError
from sagad_participant.execution import run_action, run_compensation
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
        while self._waiting and len(self._running) < self._max_concurrency:
            call, came = self._waiting.popleft()
            self._running.add(self._loop.create_task(self._run(call, came)))

    async def _run(self, call: pb.SessionCall, came: float) -> None:
        try:
            self._answers.append(await self._answer(call, came))
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._running.discard(task)
            self._start()
            self._changed.set()

    async def _answer(self, call: pb.SessionCall, came: float) -> pb.SessionAnswer:
        waited_s = self._loop.time() - came
        try:
            if call.HasField("step"):
                left_s = _remaining_s(call.step, waited_s)
                outcome = await run_action(self._participant, call.step, call.metadata, left_s)
            else:
                left_s = _remaining_s(call.compensate, waited_s)
                outcome = await run_compensation(self._participant, call.compensate, call.metadata, left_s)
        except CallError as error:
            failed = pb.SessionError(code=error.code.value[0], message=error.message)
            if error.retry_after_s is not None:
                failed.retry_after.FromNanoseconds(round(error.retry_after_s * 1e9))
            return pb.SessionAnswer(call_id=call.call_id, error=failed)
        return pb.SessionAnswer(call_id=call.call_id, outcome=outcome)

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


def _remaining_s(request: pb.StepRequest | pb.CompensateRequest, waited_s: float) -> float | None:
    """What is left of the caller's time after the call has waited here."""
    if not request.HasField("remaining_time"):
        return None
    return max(0.0, request.remaining_time.seconds + request.remaining_time.nanos / 1e9 - waited_s)
