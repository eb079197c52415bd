"""Session for the participants of tests, over their own Step and Compensate."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
import grpc.aio

from sagad.v1 import participant_service_pb2 as pb
from sagad.v1.participant_service_pb2_grpc import ParticipantServiceServicer


class Aborted(Exception):  # noqa: N818 - as gRPC calls it
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(code, details)
        self.code, self.details = code, details


class CallContext:
    """What Step and Compensate get of a context."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        raise Aborted(code, details)


@dataclass
class Stream:
    """One session that a test looks at, and may break."""

    frames: list[pb.SessionRequest] = field(default_factory=list)
    answers: "asyncio.Queue[pb.SessionResponse | None]" = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, *answers: pb.SessionAnswer, closing: bool = False) -> None:
        self.answers.put_nowait(pb.SessionResponse(answers=answers, closing=closing))

    def end(self) -> None:
        """Ends the stream with OK, whatever is open."""
        self.answers.put_nowait(None)

    @property
    def calls(self) -> list[pb.SessionCall]:
        return [call for frame in self.frames for call in frame.calls]


class SessionServicer(ParticipantServiceServicer):
    """Answers the calls of sessions by `respond`; by default as Step and Compensate do."""

    def __init__(self, *, sessions: bool = False) -> None:
        self.sessions = sessions
        self.streams: list[Stream] = []
        self.respond: Callable[[Stream, pb.SessionCall], Any] = self._respond
        self.received = asyncio.Condition()

    async def Session(
        self, request_iterator: AsyncIterator[pb.SessionRequest], context: Any
    ) -> AsyncIterator[pb.SessionResponse]:
        if not self.sessions:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no sessions")
        stream = Stream()
        self.streams.append(stream)
        yield pb.SessionResponse()
        reader = asyncio.create_task(self._read(request_iterator, stream))
        try:
            while (response := await stream.answers.get()) is not None:
                yield response
        finally:
            reader.cancel()
            stream.ended.set()

    async def handed_over(self, times: int) -> None:
        """When so many calls have come over sessions."""
        async with self.received:
            await self.received.wait_for(lambda: sum(len(stream.calls) for stream in self.streams) >= times)

    async def _read(self, requests: AsyncIterator[pb.SessionRequest], stream: Stream) -> None:
        async with asyncio.TaskGroup() as group:
            async for frame in requests:
                async with self.received:
                    stream.frames.append(frame)
                    self.received.notify_all()
                for call in frame.calls:
                    group.create_task(self.respond(stream, call))
        stream.end()

    async def _respond(self, stream: Stream, call: pb.SessionCall) -> None:
        context: Any = CallContext()
        try:
            if call.HasField("step"):
                outcome = (await self.Step(call.step, context)).outcome
            else:
                outcome = (await self.Compensate(call.compensate, context)).outcome
        except Aborted as aborted:
            error = pb.SessionError(code=aborted.code.value[0], message=aborted.details)
            stream.answer(pb.SessionAnswer(call_id=call.call_id, error=error))
        else:
            stream.answer(pb.SessionAnswer(call_id=call.call_id, outcome=outcome))
