"""Calls on one stream: frames out, answers in, each call's time. No I/O: `link` moves the frames."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from sagad.v1.participant_service_pb2 import (
    SessionAnswer,
    SessionCall,
    SessionError,
    SessionRequest,
    SessionResponse,
    StepRequest,
)
from sagad_server.domain.inputs import Failed, Outcome, failed_with_code
from sagad_server.engine.ports import Call, Clock, Timer
from sagad_server.engine.requests import MAX_MESSAGE_LENGTH, broken_answer, clean, read_outcome
from sagad_server.transport.channel import MAX_RETRY_AFTER_MS
from sagad_server.transport.dispatcher import Dispatcher

MAX_FRAME_BYTES = 256 * 1024
_CODES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK}


@dataclass(slots=True)
class _HandedOver:
    call: Call
    since_s: float


class Session:
    """The calls of one stream, from their hand-over to their end.

    A call ends with its answer, ambiguous when its time is over, or ambiguous with the stream; what comes later is
    dropped.
    """

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self.closing = False
        """The participant stops: nothing is handed over any more."""
        self.on_over: Callable[[], None] = lambda: None
        """Called when it closes and its last call has ended: there is nothing to wait for."""
        self._dispatcher = dispatcher
        self._clock = clock
        self._open: dict[int, _HandedOver] = {}
        self._last_id = 0
        self._too_early: Call | None = None
        """Taken, but the last frame was full."""
        self._deadlines: list[tuple[float, int]] = []
        """A heap; the calls of some have ended."""
        self._timer: Timer | None = None
        self._timer_s = 0.0

    @property
    def idle(self) -> bool:
        return not self._open

    def next_frame(self) -> tuple[SessionRequest, list[Call]]:
        """What may go now, handed over herewith, perhaps nothing; and the calls that are too long for a frame."""
        frame, too_long = SessionRequest(), list[Call]()
        room, now_s = MAX_FRAME_BYTES, self._clock.monotonic()
        while (call := self._next()) is not None:
            timeout_s = self._dispatcher.timeout_s(call)
            message = frame.calls.add()
            call_id = self._fill(message, call, timeout_s)
            size = message.ByteSize() + 8  # its own head
            if size > room:
                del frame.calls[-1]
                if size <= MAX_FRAME_BYTES:
                    self._too_early = call
                    break
                too_long.append(call)
            else:
                room -= size
                self._open[call_id] = _HandedOver(call, now_s)
                heapq.heappush(self._deadlines, (now_s + timeout_s, call_id))
        self._arm()
        return frame, too_long

    def receive(self, response: SessionResponse) -> None:
        """Ends the calls that are answered."""
        if response.closing:
            self.closing = True
            self._put_back()
        now_s = self._clock.monotonic()
        for answer in response.answers:
            if answer.call_id in self._open:
                outcome = _read(answer)
                self._end(answer.call_id, outcome, now_s)
        if len(self._deadlines) > 2 * len(self._open) + 1024:
            self._deadlines = [one for one in self._deadlines if one[1] in self._open]
            heapq.heapify(self._deadlines)

    def close(self, failed: Failed) -> None:
        """The stream has ended: what was handed over may have happened."""
        if self._timer is not None:
            self._timer.cancel()
        now_s = self._clock.monotonic()
        for call_id in list(self._open):
            self._end(call_id, failed, now_s)
        self._put_back()

    def _next(self) -> Call | None:
        if self.closing:
            return None
        self._put_back()  # while it waited, another node may have come to drive its saga: it is asked again
        return self._dispatcher.take()

    def _put_back(self) -> None:
        if self._too_early is not None:
            call, self._too_early = self._too_early, None
            self._dispatcher.put_back(call)

    def _fill(self, message: SessionCall, call: Call, timeout_s: float) -> int:
        """Writes the call down, and returns its id."""
        set_remaining_time(call, timeout_s)
        self._last_id += 1
        message.call_id = self._last_id
        if isinstance(call.request, StepRequest):
            message.step.CopyFrom(call.request)
        else:
            message.compensate.CopyFrom(call.request)
        if call.metadata:
            message.metadata.update(call.metadata)
        return self._last_id

    def _end(self, call_id: int, outcome: Outcome, now_s: float) -> None:
        handed_over = self._open.pop(call_id)
        self._dispatcher.ended(handed_over.call, outcome, now_s - handed_over.since_s)
        if self.closing and self.idle:
            self.on_over()

    def _arm(self) -> None:
        """Sets the timer to the first deadline, unless it goes off earlier."""
        if not self._deadlines:
            return
        first_s = self._deadlines[0][0]
        if self._timer is not None:
            if self._timer_s <= first_s:
                return
            self._timer.cancel()
        self._timer_s = first_s
        self._timer = self._clock.call_at(first_s, self._time_over)

    def _time_over(self) -> None:
        self._timer = None
        now_s = self._clock.monotonic()
        over = failed_with_code("DEADLINE_EXCEEDED", "the participant did not answer in time")
        while self._deadlines and (self._deadlines[0][0] <= now_s or self._deadlines[0][1] not in self._open):
            _, call_id = heapq.heappop(self._deadlines)
            if call_id in self._open:
                self._end(call_id, over, now_s)
        self._arm()


def set_remaining_time(call: Call, timeout_s: float) -> None:
    """Tells the participant how long its answer is waited for."""
    seconds, rest_ms = divmod(int(timeout_s * 1000), 1000)
    remaining_time = call.request.remaining_time
    remaining_time.seconds = seconds
    remaining_time.nanos = rest_ms * 1_000_000


def _read(answer: SessionAnswer) -> Outcome:
    if answer.HasField("outcome"):
        return read_outcome(answer.outcome)
    if answer.HasField("error"):
        return _read_error(answer.error)
    return broken_answer("its answer has no result")


def _read_error(error: SessionError) -> Failed:
    pause = error.retry_after
    retry_after_ms = pause.seconds * 1000 + pause.nanos // 1_000_000
    retry_after_ms = min(max(0, retry_after_ms), MAX_RETRY_AFTER_MS)
    return failed_with_code(_CODES.get(error.code, "UNKNOWN"), clean(error.message, MAX_MESSAGE_LENGTH), retry_after_ms)
