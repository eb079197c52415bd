"""Each call as an RPC of its own."""

import asyncio
import time
from typing import TYPE_CHECKING

import grpc.aio

from sagad.v1.participant_service_pb2 import StepRequest
from sagad_server.domain.inputs import Outcome, failed_with_code
from sagad_server.engine.ports import Call
from sagad_server.engine.requests import read_outcome
from sagad_server.transport.channel import failed_rpc
from sagad_server.transport.dispatcher import Dispatcher
from sagad_server.transport.session import set_remaining_time

if TYPE_CHECKING:
    from sagad.v1.participant_service_pb2_grpc import ParticipantServiceAsyncStub


class UnaryCalls:
    """The calls of one participant that are RPCs now."""

    def __init__(self, stub: "ParticipantServiceAsyncStub", dispatcher: Dispatcher) -> None:
        self._stub = stub
        self._dispatcher = dispatcher
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self) -> None:
        """Hands over what may go."""
        while (call := self._dispatcher.take()) is not None:
            self.hand_over(call)

    def hand_over(self, call: Call) -> None:
        """Makes a call that was taken."""
        task = asyncio.get_running_loop().create_task(self._run(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Gives up what is still under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, call: Call) -> None:
        began = time.monotonic()
        outcome = await self._outcome(call)
        self._dispatcher.ended(call, outcome, time.monotonic() - began)

    async def _outcome(self, call: Call) -> Outcome:
        timeout_s = self._dispatcher.timeout_s(call)
        set_remaining_time(call, timeout_s)
        try:
            if isinstance(call.request, StepRequest):
                answer = await self._stub.Step(call.request, timeout=timeout_s, metadata=call.metadata)
                return read_outcome(answer.outcome)
            undone = await self._stub.Compensate(call.request, timeout=timeout_s, metadata=call.metadata)
            return read_outcome(undone.outcome)
        except grpc.aio.AioRpcError as error:
            return failed_rpc(error)
        except asyncio.CancelledError:  # the process stops: what was handed over stays ambiguous
            return failed_with_code("CANCELLED", "sagad gave the call up")
        except Exception as error:  # noqa: BLE001 - a call must be answered, whatever the transport raises
            return failed_with_code("UNKNOWN", f"the call failed within sagad: {type(error).__name__}")
