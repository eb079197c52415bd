"""A participant, served over real gRPC, that answers as the test has written down and remembers every call."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format

from sagad.v1 import participant_service_pb2 as pb
from sagad.v1.common_pb2 import Payload, StepFailure, StepOutcome, StepPending, StepSuccess
from sagad.v1.participant_service_pb2_grpc import add_ParticipantServiceServicer_to_server
from support.session_servicer import SessionServicer

Call = pb.StepRequest | pb.CompensateRequest
Answer = StepOutcome | grpc.StatusCode


def json_payload(value: Any) -> Payload:
    payload = Payload()
    json_format.ParseDict(value, payload.json)
    return payload


def success(output: Any = None) -> StepOutcome:
    return StepOutcome(success=StepSuccess(output=None if output is None else json_payload(output)))


def failure(reason: str = "REFUSED", **fields: Any) -> StepOutcome:
    return StepOutcome(failure=StepFailure(reason=reason, message=f"refused: {reason}", **fields))


def pending() -> StepOutcome:
    return StepOutcome(pending=StepPending())


@dataclass
class Held:
    """A call that hangs until the test releases it."""

    _answer: "asyncio.Future[Answer]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def release(self, answer: Answer | None = None) -> None:
        if not self._answer.done():
            self._answer.set_result(answer or success())

    async def answer(self) -> Answer:
        return await asyncio.shield(self._answer)


class ScriptedParticipant(SessionServicer):
    """Answers each call of a name, of an action or compensation, with the next of its script, and then with success."""

    def __init__(self, *, sessions: bool = False) -> None:
        super().__init__(sessions=sessions)
        self.calls: list[Call] = []
        self.actions: list[str] = []
        self.compensations: list[str] = []
        self.address = ""
        self._scripts: dict[str, deque[Answer | Held]] = defaultdict(deque)
        self._always: dict[str, Answer | Held] = {}
        self._called = asyncio.Condition()

    def implement(self, *, actions: Iterable[str], compensations: Iterable[str]) -> None:
        """What Describe answers."""
        self.actions, self.compensations = list(actions), list(compensations)

    def script(self, name: str, *answers: Answer) -> None:
        """The answers to the next calls of the name."""
        self._scripts[name].extend(answers)

    def always(self, name: str, answer: Answer) -> None:
        """The answer to all calls of the name that have no script."""
        self._always[name] = answer

    def hold(self, name: str) -> Held:
        """Lets the next call of the name hang."""
        held = Held()
        self._scripts[name].append(held)
        return held

    def names(self) -> list[str]:
        """The names called, in order."""
        return [_name(call) for call in self.calls]

    async def called(self, name: str, times: int = 1) -> Call:
        """The call of that name, when it has come; the last of so many."""
        async with self._called:
            await self._called.wait_for(lambda: self.names().count(name) >= times)
        return [call for call in self.calls if _name(call) == name][times - 1]

    async def Step(self, request: pb.StepRequest, context: Any) -> pb.StepResponse:
        return pb.StepResponse(outcome=await self._answer(request, context))

    async def Compensate(self, request: pb.CompensateRequest, context: Any) -> pb.CompensateResponse:
        return pb.CompensateResponse(outcome=await self._answer(request, context))

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:
        return pb.DescribeResponse(actions=self.actions, compensations=self.compensations, sessions=self.sessions)

    async def _answer(self, request: Call, context: Any) -> StepOutcome:
        name = _name(request)
        async with self._called:
            self.calls.append(request)
            self._called.notify_all()
        script = self._scripts[name]
        answer = script.popleft() if script else self._always.get(name, success())
        if isinstance(answer, Held):
            answer = await answer.answer()
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "scripted")
        assert isinstance(answer, StepOutcome)
        return answer


def _name(call: Call) -> str:
    return call.action if isinstance(call, pb.StepRequest) else call.compensation


@asynccontextmanager
async def scripted_participant(
    *, sessions: bool = False, address: str = "127.0.0.1:0", participant: ScriptedParticipant | None = None
) -> AsyncIterator[ScriptedParticipant]:
    """One that serves on loopback, on a free port where none is given."""
    participant = participant or ScriptedParticipant(sessions=sessions)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_ParticipantServiceServicer_to_server(participant, server)
    participant.address = f"127.0.0.1:{server.add_insecure_port(address)}"
    await server.start()
    try:
        yield participant
    finally:
        await server.stop(grace=None)
