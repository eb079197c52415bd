"""Runs many calls of one handler at once: one transaction, one claim, one answer for all."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sagad.v1 import common_pb2
from sagad.v1 import participant_service_pb2 as pb
from sagad_participant.barrier import BatchBarrier
from sagad_participant.calls import Action, Compensation, Context
from sagad_participant.errors import CallError
from sagad_participant.execution import claim_of, run_action, run_compensation
from sagad_participant.outcomes import Refused, answer_of, failure_of
from sagad_participant.participant import BatchHandler, Participant, checked_results
from sagad_participant.rows import Entries, Kind

logger = logging.getLogger(__name__)

MAX_BATCH = 64


@dataclass(frozen=True, slots=True)
class BatchCall:
    """One call: its request, the saga's metadata, and its end by the event loop's clock; None: unbounded."""

    request: pb.StepRequest | pb.CompensateRequest
    metadata: Mapping[str, str]
    deadline: float | None

    @property
    def remaining_s(self) -> float | None:
        """What is left of the caller's time."""
        return None if self.deadline is None else max(0.0, self.deadline - asyncio.get_running_loop().time())


class _OneByOneError(Exception):
    """One of the calls must leave nothing behind in the barrier, and the others must."""


def handler_of(request: pb.StepRequest | pb.CompensateRequest) -> tuple[Kind, str]:
    """Which handler a call is for."""
    if isinstance(request, pb.StepRequest):
        return Kind.ACTION, request.action
    return Kind.COMPENSATION, request.compensation


def takes_batches(participant: Participant, kind: Kind, name: str) -> bool:
    """Whether calls of `name` may come together."""
    return participant.batch_handler(kind, name) is not None and isinstance(participant.barrier, BatchBarrier)


async def run_batch(participant: Participant, calls: Sequence[BatchCall]) -> list[common_pb2.StepOutcome | CallError]:
    """Answers calls of one kind and one name, each with a key of its own, in their order.

    In one transaction if that goes well; else each by itself, since one must not fail the others.
    """
    if len(calls) == 1:
        return [await _alone(participant, calls[0])]
    try:
        return await _together(participant, calls)
    except Exception as error:  # noqa: BLE001 - each call meets it again, by itself, where it is logged
        logger.info("%d calls are run one by one: %s", len(calls), type(error).__name__)
        return await asyncio.gather(*(_alone(participant, call) for call in calls))


async def _alone(participant: Participant, call: BatchCall) -> common_pb2.StepOutcome | CallError:
    try:
        if isinstance(call.request, pb.StepRequest):
            return await run_action(participant, call.request, call.metadata, call.remaining_s)
        return await run_compensation(participant, call.request, call.metadata, call.remaining_s)
    except CallError as error:
        return error


async def _together(participant: Participant, calls: Sequence[BatchCall]) -> list[common_pb2.StepOutcome | CallError]:
    """Raises what the handler or the barrier raises: then nothing is committed, or nobody knows."""
    kind, name = handler_of(calls[0].request)
    handler, barrier = participant.batch_handler(kind, name), participant.barrier
    assert handler is not None
    assert isinstance(barrier, BatchBarrier)
    deadline = min((call.deadline for call in calls if call.deadline is not None), default=None)
    async with (
        asyncio.timeout_at(deadline),
        barrier.claim_many([claim_of(call.request) for call in calls]) as entries,
    ):
        places = [place for place in range(len(calls)) if place not in entries.replays]
        handled = [_handled(calls[place], place, entries) for place in places]
        outcomes = await _outcomes(handler, kind, dict(zip(places, handled, strict=True)))
        if outcomes:
            await entries.settle(outcomes)
    answers = {**entries.replays, **outcomes}
    return [answers[place] for place in range(len(calls))]


def _handled(call: BatchCall, place: int, entries: Entries) -> Action | Compensation:
    context = Context(entries.connection, call.metadata, call.deadline)
    if isinstance(call.request, pb.StepRequest):
        return Action(call.request, context)
    return Compensation(call.request, context, success=entries.action_successes.get(place))


async def _outcomes(
    handler: BatchHandler, kind: Kind, handled: Mapping[int, Action | Compensation]
) -> dict[int, common_pb2.StepOutcome]:
    """Raises _OneByOneError for results that a transaction of many calls cannot keep apart."""
    if not handled:
        return {}
    results = checked_results(await handler(list(handled.values())), len(handled))
    return {place: _outcome(kind, result) for place, result in zip(handled, results, strict=True)}


def _outcome(kind: Kind, result: object) -> common_pb2.StepOutcome:
    if not isinstance(result, Refused):
        return answer_of(result)
    if result.retryable or kind is Kind.COMPENSATION:
        raise _OneByOneError
    return failure_of(result, never_executed=True)
