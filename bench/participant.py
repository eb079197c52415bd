"""The barest participant of sagad: answers with what it got, and refuses the action `refuse`."""

import sys
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc.aio
import uvloop

from bench.serving import serve
from sagad.v1 import common_pb2 as common
from sagad.v1 import participant_service_pb2 as pb
from sagad.v1 import participant_service_pb2_grpc as rpc

ACTIONS = ("reserve", "charge", "ship", "refuse")
COMPENSATIONS = ("release", "refund", "recall")

StepContext: TypeAlias = "grpc.aio.ServicerContext[pb.StepRequest, pb.StepResponse]"
SessionContext: TypeAlias = "grpc.aio.ServicerContext[pb.SessionRequest, pb.SessionResponse]"
CompensateContext: TypeAlias = "grpc.aio.ServicerContext[pb.CompensateRequest, pb.CompensateResponse]"
DescribeContext: TypeAlias = "grpc.aio.ServicerContext[pb.DescribeRequest, pb.DescribeResponse]"

REFUSAL = common.StepOutcome(failure=common.StepFailure(reason="REFUSED", message="this action is always refused"))


class Participant(rpc.ParticipantServiceServicer):
    def __init__(self, *, sessions: bool) -> None:
        self._sessions = sessions

    async def Step(self, request: pb.StepRequest, context: StepContext) -> pb.StepResponse:
        return pb.StepResponse(outcome=outcome(request))

    async def Compensate(self, request: pb.CompensateRequest, context: CompensateContext) -> pb.CompensateResponse:
        return pb.CompensateResponse(outcome=common.StepOutcome(success=common.StepSuccess()))

    async def Describe(self, request: pb.DescribeRequest, context: DescribeContext) -> pb.DescribeResponse:
        return pb.DescribeResponse(actions=ACTIONS, compensations=COMPENSATIONS, sessions=self._sessions)

    async def Session(
        self, request_iterator: AsyncIterator[pb.SessionRequest], context: SessionContext
    ) -> AsyncIterator[pb.SessionResponse]:
        yield pb.SessionResponse()
        async for request in request_iterator:
            yield pb.SessionResponse(
                answers=[pb.SessionAnswer(call_id=call.call_id, outcome=outcome(call.step)) for call in request.calls]
            )


def outcome(request: pb.StepRequest) -> common.StepOutcome:
    """A compensation has no input worth returning, so it may come as an empty StepRequest."""
    if request.action == "refuse":
        return REFUSAL
    return common.StepOutcome(success=common.StepSuccess(output=request.input))


def main() -> None:
    participant = Participant(sessions="--sessions" in sys.argv)
    uvloop.run(serve(lambda server: rpc.add_ParticipantServiceServicer_to_server(participant, server)))


if __name__ == "__main__":
    main()
