"""Runs one call: claims it at the barrier, runs the handler, turns what it did into the answer."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from sagad.v1 import common_pb2
from sagad.v1 import participant_service_pb2 as pb
from sagad_participant.calls import Action, Compensation, Context
from sagad_participant.errors import CallError, DeadlinePassed, HandlerFailed, InvalidCall
from sagad_participant.outcomes import Pending, Refused, answer_of, failure_of
from sagad_participant.participant import Handler, Participant
from sagad_participant.rows import Claim, Kind

logger = logging.getLogger(__name__)

MAX_KEY_CHARACTERS = 500
NO_METADATA: Mapping[str, str] = MappingProxyType({})


async def run_action(
    participant: Participant,
    request: pb.StepRequest,
    metadata: Mapping[str, str] = NO_METADATA,
    remaining_s: float | None = None,
) -> common_pb2.StepOutcome:
    """Answers one call of an action. Raises CallError where there is no outcome to answer with.

    Useful in tests too: it needs no server.
    """
    handler = participant.handler(Kind.ACTION, request.action)
    claim = claim_of(request)
    async with _attempt(participant, request.action, request, remaining_s) as deadline:
        try:
            async with participant.barrier.claim(claim) as entry:
                if entry.replay is not None:
                    return entry.replay
                outcome = await _answer(handler, Action(request, Context(entry.connection, metadata, deadline)))
                await entry.settle(outcome)
                return outcome
        except Refused as refusal:
            if refusal.retryable:
                return failure_of(refusal, never_executed=False)
            return await participant.barrier.refuse(claim, failure_of(refusal, never_executed=True))


async def run_compensation(
    participant: Participant,
    request: pb.CompensateRequest,
    metadata: Mapping[str, str] = NO_METADATA,
    remaining_s: float | None = None,
) -> common_pb2.StepOutcome:
    """Answers one call of a compensation. Raises CallError where there is no outcome to answer with.

    A refusal is not remembered: it parks the saga, and an operator may have the compensation tried again.
    """
    handler = participant.handler(Kind.COMPENSATION, request.compensation)
    claim = claim_of(request)
    async with _attempt(participant, request.compensation, request, remaining_s) as deadline:
        try:
            async with participant.barrier.claim(claim) as entry:
                if entry.replay is not None:
                    return entry.replay
                context = Context(entry.connection, metadata, deadline)
                call = Compensation(request, context, success=entry.action_success)
                outcome = await _answer(handler, call)
                await entry.settle(outcome)
                return outcome
        except Refused as refusal:
            return failure_of(refusal, never_executed=False)


async def _answer(handler: Handler, call: Action | Compensation) -> common_pb2.StepOutcome:
    try:
        return answer_of(await handler(call))
    except Pending as pending:
        return answer_of(pending)


@asynccontextmanager
async def _attempt(
    participant: Participant,
    name: str,
    request: pb.StepRequest | pb.CompensateRequest,
    remaining_s: float | None,
) -> AsyncIterator[float | None]:
    """Bounds a call by the caller's time, and turns what it should not raise into HandlerFailed."""
    if request.HasField("remaining_time"):
        asked_s = request.remaining_time.seconds + request.remaining_time.nanos / 1e9
        remaining_s = asked_s if remaining_s is None else min(asked_s, remaining_s)
    limit = asyncio.timeout(remaining_s)
    try:
        async with limit:
            yield limit.when()
    except CallError as error:
        logger.warning("%s of saga %s, attempt %d: %s", name, request.saga_id, request.attempt, error.message)
        raise
    except Exception as error:
        if limit.expired() and isinstance(error, TimeoutError):
            raise DeadlinePassed(f"{name} was not done in {remaining_s:g} s, and was rolled back") from None
        incident = secrets.token_hex(4)
        logger.exception(
            "%s of saga %s, attempt %d, failed: incident %s", name, request.saga_id, request.attempt, incident
        )
        raise HandlerFailed(f"{participant.name}: {name} failed; its log says why, see incident {incident}") from error


def claim_of(request: pb.StepRequest | pb.CompensateRequest) -> Claim:
    """What a call brings to the barrier. Raises InvalidCall."""
    key = request.idempotency_key
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise InvalidCall(f"idempotency_key has {len(key)} characters, 1-{MAX_KEY_CHARACTERS} are needed")
    texts = (key, request.namespace, request.saga_id, request.step_id, request.completion_token)
    if any("\0" in text for text in texts):
        raise InvalidCall("idempotency_key, namespace, saga_id, step_id or completion_token holds a NUL character")
    return Claim(
        idempotency_key=key,
        kind=Kind.ACTION if isinstance(request, pb.StepRequest) else Kind.COMPENSATION,
        fencing_token=request.fencing_token,
        namespace=request.namespace,
        saga_id=request.saga_id,
        step_id=request.step_id,
        completion_token=request.completion_token,
        known_success=_known_success(request) if isinstance(request, pb.CompensateRequest) else None,
    )


def _known_success(request: pb.CompensateRequest) -> common_pb2.StepOutcome | None:
    if request.outcome != pb.ACTION_OUTCOME_SUCCEEDED:
        return None
    success = common_pb2.StepSuccess()
    if request.HasField("output"):
        success.output.CopyFrom(request.output)
    return common_pb2.StepOutcome(success=success)
