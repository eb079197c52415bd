"""What is sent to participants, made from a saga, and how their answers are read."""

from sagad.v1.common_pb2 import Failure as FailureMessage
from sagad.v1.common_pb2 import Payload, StepOutcome
from sagad.v1.participant_service_pb2 import (
    ACTION_OUTCOME_SUCCEEDED,
    ACTION_OUTCOME_UNKNOWN,
    CompensateRequest,
    StepRequest,
)
from sagad_server.domain.graph import bits
from sagad_server.domain.inputs import Failed, NotSent, Outcome, Pending, Success
from sagad_server.domain.payloads import json_fault
from sagad_server.domain.saga import Failure, Saga
from sagad_server.domain.states import Direction, FailureCategory
from sagad_server.engine.records import encode_failure
from sagad_server.engine.tokens import Tokens

MAX_OUTPUT_BYTES = 256 * 1024
MAX_DETAILS_BYTES = 4 * 1024
MAX_MESSAGE_LENGTH = 1024
MAX_REASON_LENGTH = 63
_MAX_RETRY_AFTER_S = 30 * 86400


def step_request(saga: Saga, index: int, epoch: int, tokens: Tokens) -> StepRequest:
    """The call of a step's action."""
    definition, step = saga.definition, saga.steps[index]
    node = definition.steps[index]
    request = StepRequest(
        namespace=saga.namespace,
        saga_id=saga.saga_id,
        definition_id=definition.definition_id,
        version=definition.version,
        step_id=node.step_id,
        action=node.action,
        idempotency_key=saga.idempotency_key(index),
        attempt=step.attempt,
        fencing_token=epoch,
        input=saga.step_input(index),
        completion_token=tokens.make(saga.uid, index, Direction.ACTION, step.generation),
    )
    for dependency in bits(node.requires):
        output = saga.steps[dependency].output
        if output is not None:
            request.outputs[definition.steps[dependency].step_id].CopyFrom(output)
    if saga.labels:
        request.labels.update(saga.labels)
    if saga.lock_tokens:
        request.lock_tokens.update(saga.lock_tokens)
    return request


def compensate_request(saga: Saga, index: int, epoch: int, tokens: Tokens) -> CompensateRequest:
    """The call of a step's compensation. Its key is that of the action it undoes."""
    definition, step = saga.definition, saga.steps[index]
    node = definition.steps[index]
    cause: FailureMessage | None = encode_failure(saga.failure)
    request = CompensateRequest(
        namespace=saga.namespace,
        saga_id=saga.saga_id,
        definition_id=definition.definition_id,
        version=definition.version,
        step_id=node.step_id,
        action=node.action,
        compensation=node.compensation,
        idempotency_key=saga.idempotency_key(index),
        attempt=step.compensation_attempt,
        fencing_token=epoch,
        input=saga.step_input(index),
        outcome=ACTION_OUTCOME_SUCCEEDED if step.succeeded else ACTION_OUTCOME_UNKNOWN,
        output=step.output,
        cause=cause,
        completion_token=tokens.make(saga.uid, index, Direction.COMPENSATION, step.generation),
    )
    if saga.labels:
        request.labels.update(saga.labels)
    if saga.lock_tokens:
        request.lock_tokens.update(saga.lock_tokens)
    return request


def read_outcome(message: StepOutcome) -> Outcome:
    """A participant's answer. One that breaks the contract says nothing about the effect: ambiguous, and retried."""
    kind = message.WhichOneof("result")
    if kind == "success":
        if not message.success.HasField("output"):
            return Success(None)
        output = message.success.output
        fault = _payload_fault(output)
        return Success(output) if fault is None else broken_answer(f"its output {fault}")
    if kind == "failure":
        return _read_failure(message)
    if kind == "pending":
        return Pending()
    return broken_answer("its answer has no result")


def _read_failure(message: StepOutcome) -> Failed:
    said = message.failure
    never_executed = said.never_executed
    details = said.details if said.HasField("details") and said.details.ByteSize() <= MAX_DETAILS_BYTES else None
    if details is not None and json_fault(Payload(json={"struct_value": details}).json):
        details = None
    retry_after = said.retry_after.seconds if said.HasField("retry_after") else 0
    nanos = said.retry_after.nanos if said.HasField("retry_after") else 0
    retry_after_ms = 0
    if 0 <= retry_after <= _MAX_RETRY_AFTER_S:
        retry_after_ms = retry_after * 1000 + max(0, nanos) // 1_000_000
    failure = Failure(
        FailureCategory.BUSINESS,
        clean(said.reason, MAX_REASON_LENGTH) or "REFUSED",
        clean(said.message, MAX_MESSAGE_LENGTH),
        details=details,
    )
    return Failed(
        failure,
        retryable=said.retryable and not never_executed,
        never_executed=never_executed,
        retry_after_ms=retry_after_ms,
    )


def clean(text: str, limit: int) -> str:
    """Text as the store can keep it, cut to `limit` characters."""
    return text.replace("\x00", "")[:limit]


def _payload_fault(payload: Payload) -> str | None:
    if payload.ByteSize() > MAX_OUTPUT_BYTES:
        return f"is {payload.ByteSize()} bytes long, more than {MAX_OUTPUT_BYTES}"
    if len(payload.content_type) > 100 or "\x00" in payload.content_type:
        return "has a content_type that is too long or holds NUL"
    return json_fault(payload.json) if payload.WhichOneof("kind") == "json" else None


def broken_answer(why: str) -> Failed:
    """An answer that says nothing about the effect."""
    failure = Failure(FailureCategory.INFRASTRUCTURE, "INVALID_ANSWER", f"the participant broke the contract: {why}")
    return Failed(failure, code="UNKNOWN", ambiguous=True, retryable=True)


def describe(outcome: Outcome) -> str:
    """One word for metrics and logs."""
    if isinstance(outcome, Success):
        return "success"
    if isinstance(outcome, Pending):
        return "pending"
    if isinstance(outcome, NotSent):
        return "not_sent"
    return "ambiguous" if outcome.ambiguous else "failure"
