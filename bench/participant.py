"""The barest participant of sagad: answers with what it got, and refuses the action `refuse`."""

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
CompensateContext: TypeAlias = "grpc.aio.ServicerContext[pb.CompensateRequest, pb.CompensateResponse]"
DescribeContext: TypeAlias = "grpc.aio.ServicerContext[pb.DescribeRequest, pb.DescribeResponse]"

REFUSAL = common.StepOutcome(failure=common.StepFailure(reason="REFUSED", message="this action is always refused"))


class Participant(rpc.ParticipantServiceServicer):
    async def Step(self, request: pb.StepRequest, context: StepContext) -> pb.StepResponse:
        if request.action == "refuse":
            return pb.StepResponse(outcome=REFUSAL)
        return pb.StepResponse(outcome=common.StepOutcome(success=common.StepSuccess(output=request.input)))

    async def Compensate(self, request: pb.CompensateRequest, context: CompensateContext) -> pb.CompensateResponse:
        return pb.CompensateResponse(outcome=common.StepOutcome(success=common.StepSuccess()))

    async def Describe(self, request: pb.DescribeRequest, context: DescribeContext) -> pb.DescribeResponse:
        return pb.DescribeResponse(actions=ACTIONS, compensations=COMPENSATIONS)


def main() -> None:
    uvloop.run(serve(lambda server: rpc.add_ParticipantServiceServicer_to_server(Participant(), server)))


if __name__ == "__main__":
    main()
