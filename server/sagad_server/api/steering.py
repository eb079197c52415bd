"""The calls by which people and participants steer a saga."""

from typing import Protocol

from google.protobuf.struct_pb2 import Value

from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.common_pb2 import StepOutcome
from sagad.v1.saga_service_pb2_grpc import SagaServiceServicer
from sagad_server.api.conversions import saga_message
from sagad_server.api.interceptor import Context, actor
from sagad_server.domain.checks import Bounds
from sagad_server.domain.inputs import Failed, Success
from sagad_server.domain.payloads import json_fault
from sagad_server.domain.validation import RequestChecker, ValidationLimits
from sagad_server.engine.commands import Commands
from sagad_server.engine.requests import MAX_REASON_LENGTH, read_outcome
from sagad_server.storage.rows import Key

DEFAULT_NAMESPACE = "default"
_TOKEN_LENGTH = Bounds(1, 200)
_MESSAGE_LENGTH = Bounds(0, 65_536)  # what is longer than the contract's 1,024 is cut
_EXECUTED = {
    pb.SKIP_OUTCOME_UNSPECIFIED: None,
    pb.SKIP_OUTCOME_SUCCEEDED: True,
    pb.SKIP_OUTCOME_NOT_EXECUTED: False,
}


class SagaRequest(Protocol):
    """Any request that names a saga."""

    @property
    def namespace(self) -> str: ...
    @property
    def saga_id(self) -> str: ...


class RevisionRequest(SagaRequest, Protocol):
    """Any request of an operator."""

    @property
    def revision(self) -> int: ...
    @property
    def reason(self) -> str: ...


class Steering(SagaServiceServicer):
    """The part of SagaService that steers."""

    def __init__(self, commands: Commands, limits: ValidationLimits) -> None:
        self._commands = commands
        self._limits = limits

    async def CompensateSaga(self, request: pb.CompensateSagaRequest, context: Context) -> pb.CompensateSagaResponse:
        check = self._check(request)
        check.reason("reason", request.reason, required=False)
        check.raise_if_any()
        saga = await self._commands.compensate(key_of(request), reason=request.reason, actor=actor.get())
        return pb.CompensateSagaResponse(saga=saga_message(saga))

    async def CompleteStep(self, request: pb.CompleteStepRequest, context: Context) -> pb.CompleteStepResponse:
        check = self._check(request)
        check.step_id("step_id", request.step_id)
        check.text("completion_token", request.completion_token, _TOKEN_LENGTH)
        _check_outcome(check, request.outcome)
        check.raise_if_any()
        outcome = read_outcome(request.outcome)
        assert isinstance(outcome, Success | Failed), outcome
        saga = await self._commands.complete(
            key_of(request), request.step_id, request.completion_token, outcome, actor=actor.get()
        )
        return pb.CompleteStepResponse(saga=saga_message(saga))

    async def RetrySaga(self, request: pb.RetrySagaRequest, context: Context) -> pb.RetrySagaResponse:
        check = self._check_operator(request)
        if request.step_id:
            check.step_id("step_id", request.step_id)
        new_input = request.input if request.HasField("input") else None
        if new_input is not None:
            check.payload("input", new_input)
            if not request.step_id:
                check.fail("input", "give the step_id that it is for")
        check.raise_if_any()
        saga = await self._commands.retry(
            key_of(request),
            revision=request.revision,
            step_id=request.step_id,
            new_input=new_input,
            reason=request.reason,
            actor=actor.get(),
        )
        return pb.RetrySagaResponse(saga=saga_message(saga))

    async def SkipStep(self, request: pb.SkipStepRequest, context: Context) -> pb.SkipStepResponse:
        check = self._check_operator(request)
        check.step_id("step_id", request.step_id)
        check.enum("outcome", request.outcome, pb.SkipOutcome.DESCRIPTOR)
        check.payload("output", request.output)
        check.raise_if_any()
        saga = await self._commands.skip(
            key_of(request),
            revision=request.revision,
            step_id=request.step_id,
            executed=_EXECUTED[request.outcome],
            output=request.output if request.HasField("output") else None,
            reason=request.reason,
            actor=actor.get(),
        )
        return pb.SkipStepResponse(saga=saga_message(saga))

    async def AbandonSaga(self, request: pb.AbandonSagaRequest, context: Context) -> pb.AbandonSagaResponse:
        self._check_operator(request).raise_if_any()
        saga = await self._commands.abandon(
            key_of(request), revision=request.revision, reason=request.reason, actor=actor.get()
        )
        return pb.AbandonSagaResponse(saga=saga_message(saga))

    def _check(self, request: SagaRequest) -> RequestChecker:
        check = RequestChecker(self._limits)
        check.namespace("namespace", request.namespace)
        check.saga_id("saga_id", request.saga_id)
        return check

    def _check_operator(self, request: RevisionRequest) -> RequestChecker:
        check = self._check(request)
        check.revision("revision", request.revision)
        check.reason("reason", request.reason, required=True)
        return check


def key_of(request: SagaRequest) -> Key:
    return request.namespace or DEFAULT_NAMESPACE, request.saga_id


def _check_outcome(check: RequestChecker, outcome: StepOutcome) -> None:
    """What CompleteStep takes for an answer. A participant's reply may be sloppier: there is nobody to be told."""
    kind = outcome.WhichOneof("result")
    if kind == "success":
        check.payload("outcome.success.output", outcome.success.output)
    elif kind == "failure":
        failure = outcome.failure
        check.text("outcome.failure.reason", failure.reason, Bounds(0, MAX_REASON_LENGTH))
        check.text("outcome.failure.message", failure.message, _MESSAGE_LENGTH)
        fault = json_fault(Value(struct_value=failure.details))
        if fault is not None:
            check.fail("outcome.failure.details", fault)
    else:
        check.fail("outcome", f"is {kind or 'not given'}; success or failure is needed")
