"""Moves a session's frames over its gRPC stream: one task reads, one writes."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import grpc.aio
import structlog

from sagad.v1.participant_service_pb2 import SessionRequest, SessionResponse
from sagad_server.domain.inputs import failed_with_code
from sagad_server.engine.ports import Call
from sagad_server.engine.requests import MAX_MESSAGE_LENGTH, clean
from sagad_server.transport.session import Session

if TYPE_CHECKING:
    from sagad.v1.participant_service_pb2_grpc import ParticipantServiceAsyncStub

    StreamCall: TypeAlias = grpc.aio.StreamStreamCall[SessionRequest, SessionResponse]

log = structlog.get_logger(__name__)

_OPEN_WITHIN_S = 2.0
_STUCK_AFTER_S = 10.0
"""A participant that takes no frame for so long has frozen: the calls behind it need another way."""


async def open_stream(stub: "ParticipantServiceAsyncStub") -> "StreamCall | str":
    """A stream whose participant has sent its empty first response, or why there is none."""
    call = stub.Session()
    try:
        async with asyncio.timeout(_OPEN_WITHIN_S):
            first = await call.read()
    except TimeoutError:
        why = f"the participant sent no first response within {_OPEN_WITHIN_S:g} s"
    except grpc.aio.AioRpcError as error:
        why = f"{error.code().name}: {clean(error.details() or '', MAX_MESSAGE_LENGTH)}"
    except asyncio.CancelledError:
        call.cancel()
        raise
    else:
        if isinstance(first, SessionResponse):
            return call
        why = "the participant ended the stream"
    call.cancel()
    return why


class Stream:
    """A session over an open stream. `run` it."""

    def __init__(self, call: "StreamCall", session: Session, too_long: Callable[[Call], None]) -> None:
        """`too_long` takes the calls that fit into no frame."""
        self.session = session
        self._call = call
        self._too_long = too_long
        self._ready = asyncio.Event()
        self._ready.set()
        session.on_over = self._ready.set
        self._stuck = ""

    def take(self) -> None:
        """Something may be handed over."""
        self._ready.set()

    async def run(self) -> str:
        """Until the stream ends; says why."""
        writer = asyncio.get_running_loop().create_task(self._write())
        why = "sagad stops"
        try:
            why = await self._read()
        finally:
            self._call.cancel()
            writer.cancel()
            self.session.close(failed_with_code("UNAVAILABLE", f"the session broke: {why}"))
            await asyncio.wait([writer])
        return why

    async def _read(self) -> str:
        try:
            while isinstance(response := await self._call.read(), SessionResponse):
                self.session.receive(response)
                if self.session.closing:
                    self._ready.set()
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {clean(error.details() or '', MAX_MESSAGE_LENGTH)}"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._stuck or "it was cancelled"  # so gRPC says that the writer has ended the stream
        except Exception as error:
            log.exception("a session failed within sagad")
            return f"it failed within sagad: {type(error).__name__}"
        return "the participant ended it"

    async def _write(self) -> None:
        try:
            while not (self.session.closing and self.session.idle):
                await self._ready.wait()
                self._ready.clear()
                await self._write_ready()
            await self._call.done_writing()
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream is of no use any more; `run` says so
            self._stuck = f"no frame could be written ({type(error).__name__})"
            self._call.cancel()

    async def _write_ready(self) -> None:
        """What is queued while a frame is written goes with the next one."""
        while True:
            frame, too_long = self.session.next_frame()
            for call in too_long:
                self._too_long(call)
            if not frame.calls:
                return
            async with asyncio.timeout(_STUCK_AFTER_S):
                await self._call.write(frame)
