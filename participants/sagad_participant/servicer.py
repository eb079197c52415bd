"""A participant as a gRPC service."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from sagad.v1 import participant_service_pb2 as pb
from sagad.v1 import participant_service_pb2_grpc as pb_grpc
from sagad_participant.errors import CallError
from sagad_participant.execution import run_action, run_compensation
from sagad_participant.participant import Participant
from sagad_participant.rows import Kind
from sagad_participant.sessions import Session

_TRANSPORT_KEYS = frozenset({"user-agent", "content-type", "te"})
_TRANSPORT_PREFIXES = (":", "grpc-", "sagad-")

MAX_CONCURRENCY = 100

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class ParticipantServicer(pb_grpc.ParticipantServiceServicer):
    """Serves one participant, on a grpc.aio server.

    max_concurrency: how many calls of one session are handled at once; 0 serves no sessions: each call is an RPC then.
    """

    def __init__(self, participant: Participant, *, max_concurrency: int = MAX_CONCURRENCY) -> None:
        self._participant = participant
        self._max_concurrency = max_concurrency
        self._sessions: set[Session] = set()

    async def Step(self, request: pb.StepRequest, context: Context) -> pb.StepResponse:
        """See the contract."""
        try:
            outcome = await run_action(self._participant, request, _metadata(context), context.time_remaining())
        except CallError as error:
            await _abort(context, error)
        return pb.StepResponse(outcome=outcome)

    async def Compensate(self, request: pb.CompensateRequest, context: Context) -> pb.CompensateResponse:
        """See the contract."""
        try:
            outcome = await run_compensation(self._participant, request, _metadata(context), context.time_remaining())
        except CallError as error:
            await _abort(context, error)
        return pb.CompensateResponse(outcome=outcome)

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        """See the contract."""
        names = self._participant.names
        return pb.DescribeResponse(
            actions=names(Kind.ACTION), compensations=names(Kind.COMPENSATION), sessions=self._max_concurrency > 0
        )

    async def Session(  # type: ignore[override]  # the stub knows generators only; grpc.aio takes a coroutine that writes
        self, request_iterator: AsyncIterator[pb.SessionRequest], context: Context
    ) -> None:
        """See the contract."""
        if not self._max_concurrency:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{self._participant.name} serves no sessions")
        session = Session(self._participant, context.write, self._max_concurrency)
        self._sessions.add(session)
        try:
            await session.serve(request_iterator)
        finally:
            self._sessions.discard(session)

    def close_sessions(self) -> None:
        """Before the server stops: sessions answer what they have got, and end."""
        for session in self._sessions:
            session.close()


async def _abort(context: Context, error: CallError) -> NoReturn:
    await context.abort(error.code, error.message, _retry_info(error))
    raise AssertionError("abort raises")


def _retry_info(error: CallError) -> tuple[tuple[str, bytes], ...]:
    """google.rpc.RetryInfo as trailing metadata, where the error asks for a pause."""
    if error.retry_after_s is None:
        return ()
    delay = Duration()
    delay.FromNanoseconds(round(error.retry_after_s * 1e9))
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return (("grpc-status-details-bin", status.SerializeToString()),)


def _metadata(context: Context) -> Mapping[str, str]:
    """The saga's metadata: what the transport has not put there itself."""
    return {
        key: value
        for key, value in context.invocation_metadata() or ()
        if isinstance(value, str) and key not in _TRANSPORT_KEYS and not key.startswith(_TRANSPORT_PREFIXES)
    }
