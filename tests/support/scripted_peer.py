"""A gRPC server that answers as a test has written down, for what a healthy sagad never does on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from sagad.v1 import definition_service_pb2, saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasResponse
from sagad.v1.admin_service_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from sagad.v1.definition_service_pb2_grpc import (
    DefinitionServiceServicer,
    add_DefinitionServiceServicer_to_server,
)
from sagad.v1.saga_service_pb2_grpc import SagaServiceServicer, add_SagaServiceServicer_to_server


@dataclass(frozen=True)
class Refusal:
    """An error that the peer answers with; without a reason it is as if a network had made it."""

    code: str
    reason: str = ""
    retry_after_s: float | None = None
    message: str = "scripted"
    violations: Sequence[tuple[str, str]] = ()

    def status(self) -> grpc.Status:
        result: grpc.Status = rpc_status.to_status(self.message_status())
        return result

    def message_status(self) -> status_pb2.Status:
        """The same as part of a message."""
        details = []
        if self.reason:
            details.append(packed(error_details_pb2.ErrorInfo(reason=self.reason, domain="sagad")))
        if self.violations:
            request = error_details_pb2.BadRequest()
            for path, description in self.violations:
                request.field_violations.add(field=path, description=description)
            details.append(packed(request))
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            details.append(packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=code_pb2.Code.Value(self.code), message=self.message, details=details)


class Silence:
    """The peer says nothing more, and keeps the stream open."""


def packed(message: Any) -> AnyMessage:
    result = AnyMessage()
    result.Pack(message)
    return result


def snapshot(revision: int, state: saga_pb2.SagaState.ValueType = saga_pb2.SAGA_STATE_RUNNING) -> pb.WatchSagaResponse:
    return pb.WatchSagaResponse(revision=revision, snapshot=saga_pb2.Saga(revision=revision, state=state))


def event(revision: int, state: saga_pb2.SagaState.ValueType = saga_pb2.SAGA_STATE_RUNNING) -> pb.WatchSagaResponse:
    return pb.WatchSagaResponse(revision=revision, event=saga_pb2.SagaEvent(revision=revision, state=state))


def heartbeat(revision: int) -> pb.WatchSagaResponse:
    return pb.WatchSagaResponse(revision=revision, heartbeat=pb.Heartbeat())


def watched(*events: saga_pb2.SagaEvent, token: str) -> pb.WatchSagasResponse:
    """A message of a watch of many sagas. Its events have the tokens `token/1` and so on, the last one its own."""
    message = pb.WatchSagasResponse(resume_token=token)
    for number, one in enumerate(events, start=1):
        last = number == len(events)
        message.events.add(event=one, resume_token=token if last else f"{token}/{number}")
    return message


@dataclass
class Peer(SagaServiceServicer, DefinitionServiceServicer, AdminServiceServicer):
    """Answers each call with the next item of the script: a response, a Refusal, or for a watch a list of such."""

    script: deque[Any] = field(default_factory=deque)
    requests: list[Any] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """Stop at once, in the middle of what is under way."""
        if self.server is not None:
            server, self.server = self.server, None
            await server.stop(grace=None)

    async def _answer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.called.set()
        self.times.append(asyncio.get_running_loop().time())
        step = self.script.popleft() if self.script else Refusal("INTERNAL", "SCRIPT_IS_OVER")
        if isinstance(step, Refusal):
            await context.abort_with_status(step.status())
        if isinstance(step, Silence):
            await asyncio.Event().wait()
        return step

    async def StartSaga(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def GetSaga(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def ListSagas(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def RetrySaga(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def CreateDefinition(self, request: Any, context: Any) -> definition_service_pb2.CreateDefinitionResponse:
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def PurgeSagas(self, request: Any, context: Any) -> PurgeSagasResponse:
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def WatchSaga(self, request: Any, context: Any) -> AsyncIterator[pb.WatchSagaResponse]:
        async for message in self._stream(request, context):
            yield message

    async def WatchSagas(self, request: Any, context: Any) -> AsyncIterator[pb.WatchSagasResponse]:
        async for message in self._stream(request, context):
            yield message

    async def _stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        steps: Sequence[Any] = await self._answer(request, context)
        for step in steps:
            if isinstance(step, Refusal):
                await context.abort_with_status(step.status())
            elif isinstance(step, Silence):
                await asyncio.Event().wait()
            else:
                yield step


@asynccontextmanager
async def serving(
    peer: Peer, port: int = 0, *, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Peer]:
    """Serve the peer on a port of loopback, a free one by default; with credentials over TLS."""
    server = grpc.aio.server()
    add_SagaServiceServicer_to_server(peer, server)
    add_DefinitionServiceServicer_to_server(peer, server)
    add_AdminServiceServicer_to_server(peer, server)
    address = f"127.0.0.1:{port}"
    if credentials is None:
        peer.port = server.add_insecure_port(address)
    else:
        peer.port = server.add_secure_port(address, credentials)
    peer.server = server
    await server.start()
    try:
        yield peer
    finally:
        await peer.stop()
