"""A participant that takes its time and keeps the books: which keys each step was called with, and what was undone."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from sagad.v1 import participant_service_pb2 as pb
from sagad.v1.common_pb2 import StepFailure, StepOutcome, StepSuccess
from sagad.v1.definition_pb2 import Definition
from sagad.v1.participant_service_pb2_grpc import add_ParticipantServiceServicer_to_server
from support.definitions import definition, step
from support.session_servicer import SessionServicer

DEFINITION_ID = "kept"


def kept_definition() -> Definition:
    """Three steps; the third is refused where the saga's label `refuse` says so."""
    steps = [
        step(
            name,
            participant="keeper",
            action="keep",
            compensation="unkeep",
            timeout="20s",
            maxRetries=10,
            retry={"initialBackoff": "0.05s", "maxBackoff": "0.5s"},
        )
        for name in ("one", "two", "three")
    ]
    return definition(*steps, definitionId=DEFINITION_ID)


class Keeper(SessionServicer):
    """Answers after `delay_s`. Effects are idempotent by key, as a participant's must be."""

    def __init__(self, delay_s: float = 0.0, *, sessions: bool = False) -> None:
        super().__init__(sessions=sessions)
        self.delay_s = delay_s
        self.address = ""
        self.keys: dict[tuple[str, str], set[str]] = defaultdict(set)
        """By saga and step."""
        self.done: dict[str, list[str]] = defaultdict(list)
        """Steps whose action has its effect, by saga, in order."""
        self.undone: dict[str, list[str]] = defaultdict(list)
        self.calls = 0
        self.called = asyncio.Event()

    async def Step(self, request: pb.StepRequest, context: grpc.aio.ServicerContext) -> pb.StepResponse:
        self._note(request)
        await asyncio.sleep(self.delay_s)
        if request.step_id == "three" and request.labels.get("refuse"):
            return pb.StepResponse(outcome=StepOutcome(failure=StepFailure(reason="REFUSED", message="as asked")))
        if request.step_id not in self.done[request.saga_id]:
            self.done[request.saga_id].append(request.step_id)
        return pb.StepResponse(outcome=StepOutcome(success=StepSuccess(output=request.input)))

    async def Compensate(
        self, request: pb.CompensateRequest, context: grpc.aio.ServicerContext
    ) -> pb.CompensateResponse:
        self._note(request)
        await asyncio.sleep(self.delay_s)
        if request.step_id not in self.undone[request.saga_id]:
            self.undone[request.saga_id].append(request.step_id)
        return pb.CompensateResponse(outcome=StepOutcome(success=StepSuccess()))

    async def Describe(self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext) -> pb.DescribeResponse:
        return pb.DescribeResponse(actions=["keep"], compensations=["unkeep"], sessions=self.sessions)

    def _note(self, request: pb.StepRequest | pb.CompensateRequest) -> None:
        self.calls += 1
        self.called.set()
        self.keys[request.saga_id, request.step_id].add(request.idempotency_key)

    def violations(self, succeeded: set[str], compensated: set[str]) -> list[str]:
        """What is wrong, once all sagas have ended."""
        found = [f"{step} was called with {len(keys)} keys" for step, keys in self.keys.items() if len(keys) > 1]
        found += [
            f"{saga_id} succeeded with {self.done[saga_id]}, undone {self.undone[saga_id]}"
            for saga_id in succeeded
            if self.done[saga_id] != ["one", "two", "three"] or self.undone[saga_id]
        ]
        for saga_id in compensated:
            if set(self.undone[saga_id]) < set(self.done[saga_id]):
                found.append(f"{saga_id} was compensated, and of {self.done[saga_id]} undone {self.undone[saga_id]}")
            order = [name for name in self.undone[saga_id] if name in ("one", "two")]
            if order != ["two", "one"]:
                found.append(f"{saga_id} was undone in the order {self.undone[saga_id]}")
        return found


@asynccontextmanager
async def keeping(delay_s: float = 0.0, *, sessions: bool = False) -> AsyncIterator[Keeper]:
    """A keeper that serves."""
    keeper = Keeper(delay_s, sessions=sessions)
    server = grpc.aio.server()
    add_ParticipantServiceServicer_to_server(keeper, server)
    keeper.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield keeper
    finally:
        await server.stop(0)
