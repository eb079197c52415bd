"""A participant as a gRPC service."""

from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

import grpc

from sagad.v1 import participant_service_pb2 as pb
from sagad.v1 import participant_service_pb2_grpc as pb_grpc
from sagad_participant.errors import CallError
from sagad_participant.execution import run_action, run_compensation
from sagad_participant.participant import Participant
from sagad_participant.rows import Kind

_TRANSPORT_KEYS = frozenset({"user-agent", "content-type", "te"})
_TRANSPORT_PREFIXES = (":", "grpc-", "sagad-")

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class ParticipantServicer(pb_grpc.ParticipantServiceServicer):
    """Serves one participant, on a grpc.aio server."""

    def __init__(self, participant: Participant) -> None:
        self._participant = participant

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
        return pb.DescribeResponse(actions=names(Kind.ACTION), compensations=names(Kind.COMPENSATION))


async def _abort(context: Context, error: CallError) -> NoReturn:
    await context.abort(error.code, error.message)
    raise AssertionError("abort raises")


def _metadata(context: Context) -> Mapping[str, str]:
    """The saga's metadata: what the transport has not put there itself."""
    return {
        key: value
        for key, value in context.invocation_metadata() or ()
        if isinstance(value, str) and key not in _TRANSPORT_KEYS and not key.startswith(_TRANSPORT_PREFIXES)
    }
