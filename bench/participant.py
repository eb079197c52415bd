"""The barest participant of sagad: answers with what it got, refuses `refuse`, and has `wait` wait at first."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc.aio
import uvloop

from bench.definitions import COMPENSATIONS
from bench.serving import serve
from sagad.v1 import common_pb2 as common
from sagad.v1 import participant_service_pb2 as pb
from sagad.v1 import participant_service_pb2_grpc as rpc

StepContext: TypeAlias = "grpc.aio.ServicerContext[pb.StepRequest, pb.StepResponse]"
SessionContext: TypeAlias = "grpc.aio.ServicerContext[pb.SessionRequest, pb.SessionResponse]"
CompensateContext: TypeAlias = "grpc.aio.ServicerContext[pb.CompensateRequest, pb.CompensateResponse]"
DescribeContext: TypeAlias = "grpc.aio.ServicerContext[pb.DescribeRequest, pb.DescribeResponse]"

UNDONE_BY = sorted(set(COMPENSATIONS.values()))
REFUSAL = common.StepOutcome(failure=common.StepFailure(reason="REFUSED", message="this action is always refused"))


PENDING = common.StepOutcome(pending=common.StepPending())


class Participant(rpc.ParticipantServiceServicer):
    """With `hold`, it answers nothing until the process gets SIGUSR1."""

    def __init__(self, *, sessions: bool, hold: bool) -> None:
        self._sessions = sessions
        self._released = asyncio.Event()
        if hold:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._released.set)
        else:
            self._released.set()

    async def Step(self, request: pb.StepRequest, context: StepContext) -> pb.StepResponse:
        await self._released.wait()
        return pb.StepResponse(outcome=outcome(request))

    async def Compensate(self, request: pb.CompensateRequest, context: CompensateContext) -> pb.CompensateResponse:
        return pb.CompensateResponse(outcome=common.StepOutcome(success=common.StepSuccess()))

    async def Describe(self, request: pb.DescribeRequest, context: DescribeContext) -> pb.DescribeResponse:
        return pb.DescribeResponse(
            actions=COMPENSATIONS, compensations=set(COMPENSATIONS.values()), sessions=self._sessions
        )

    async def Session(
        self, request_iterator: AsyncIterator[pb.SessionRequest], context: SessionContext
    ) -> AsyncIterator[pb.SessionResponse]:
        yield pb.SessionResponse()
        async for request in request_iterator:
            await self._released.wait()
            yield pb.SessionResponse(
                answers=[pb.SessionAnswer(call_id=call.call_id, outcome=outcome(call.step)) for call in request.calls]
            )


def outcome(request: pb.StepRequest) -> common.StepOutcome:
    """A compensation has no input worth returning, so it may come as an empty StepRequest."""
    if request.action == "refuse":
        return REFUSAL
    if request.action == "wait" and request.attempt == 1:
        return PENDING
    return common.StepOutcome(success=common.StepSuccess(output=request.input))


async def run(sessions: bool, hold: bool) -> None:
    participant = Participant(sessions=sessions, hold=hold)
    await serve(lambda server: rpc.add_ParticipantServiceServicer_to_server(participant, server))


def main() -> None:
    uvloop.run(run("--sessions" in sys.argv, "--hold" in sys.argv))


if __name__ == "__main__":
    main()
