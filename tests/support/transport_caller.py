"""Sends calls as the engine does, and collects their outcomes."""

import asyncio

from sagad.v1.participant_service_pb2 import CompensateRequest, StepRequest
from sagad_server.domain.inputs import Outcome
from sagad_server.domain.states import Direction
from sagad_server.engine.ports import Call
from sagad_server.metrics import Metrics
from sagad_server.system import SystemClock, SystemRandom
from sagad_server.transport.channel import ParticipantConfig
from sagad_server.transport.grpc import GrpcTransport


class Caller:
    """Sends calls and collects their outcomes."""

    def __init__(self, target: str, max_in_flight: int = 100, step_timeout_s: float = 5) -> None:
        configs = {"peer": ParticipantConfig(target, step_timeout_s, max_in_flight)}
        self.transport = GrpcTransport(configs, SystemClock(), SystemRandom(), Metrics())

    async def until(self, *, session: bool) -> None:
        """When calls go as the test wants them to."""
        async with asyncio.timeout(20):
            while self.transport.states()["peer"].session is not session:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)

    def send(
        self,
        participant: str = "peer",
        *,
        direction: Direction = Direction.ACTION,
        timeout_ms: int | None = None,
        size: int = 0,
        key: str = "",
    ) -> "asyncio.Future[Outcome]":
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        action = direction is Direction.ACTION
        request = StepRequest(action="act", step_id="one") if action else CompensateRequest(compensation="undo")
        request.input.data = bytes(size)
        request.idempotency_key = key
        call = Call(
            key=("default", "s"),
            participant=participant,
            step=0,
            direction=direction,
            generation=1,
            attempt=1,
            request=request,
            timeout_ms=timeout_ms,
            metadata=(("tenant", "acme"),),
            may_start=lambda _: True,
            on_outcome=lambda _, outcome: future.set_result(outcome),  # a second answer would raise
        )
        self.transport.send(call)
        return future
