"""Finishing what was answered with pending."""

import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Protocol

import grpc

from sagad.v1 import saga_service_pb2
from sagad_participant.outcomes import Refused, failure_of, success_of
from sagad_participant.rows import Kind, Work

logger = logging.getLogger(__name__)

FINAL_CODES = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,  # the step was given up, or has another outcome
        grpc.StatusCode.NOT_FOUND,  # the saga is purged
        grpc.StatusCode.PERMISSION_DENIED,  # the token is wrong
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)
"""After these, telling the coordinator again is in vain."""


class Completion:
    """Pending work in the transaction that completes it. Leaving the block without a word means success without output.

        async with barrier.completion(key) as completion:
            await completion.connection.execute("UPDATE shipment SET ...")
            completion.succeed({"tracking": "T-1"})
        await stub.CompleteStep(completion.request())
        await barrier.delivered(completion.work)

    Or leave the last two to `deliver`.
    """

    def __init__(self, connection: Any, work: Work) -> None:
        self.connection = connection
        self.work = work
        self.outcome = success_of()
        self.committed = False

    def succeed(self, output: object = None) -> None:
        """The work is done. Raises BadAnswer for an output that cannot be sent."""
        self.outcome = success_of(output)

    def refuse(self, refusal: Refused) -> None:
        """The work cannot be done. Undo in this same transaction whatever the handler had committed for it.

        Raises ValueError for a retryable refusal: to try again later, leave the work pending.
        """
        if refusal.retryable:
            raise ValueError("pending work cannot be refused as retryable: leave it pending, and try again later")
        self.outcome = failure_of(refusal, never_executed=self.work.kind is Kind.ACTION)

    def request(self) -> saga_service_pb2.CompleteStepRequest:
        """What to tell SagaService.CompleteStep. Raises RuntimeError before the block's transaction is committed."""
        if not self.committed:
            raise RuntimeError("the completion is not committed yet: ask for the request after the `async with` block")
        return replace(self.work, outcome=self.outcome).request()


class CompleteStep(Protocol):
    """The method CompleteStep of an asynchronous stub of SagaService."""

    def __call__(
        self, request: saga_service_pb2.CompleteStepRequest, *, timeout: float | None = None
    ) -> Awaitable[saga_service_pb2.CompleteStepResponse]:
        """Sends the request."""


class Outbox(Protocol):
    """The part of a barrier that `deliver` uses."""

    async def undelivered(self, limit: int = 100) -> list[Work]:
        """See Barrier."""

    async def delivered(self, work: Work) -> None:
        """See Barrier."""


async def deliver(barrier: Outbox, complete_step: CompleteStep, *, limit: int = 100, timeout_s: float = 10.0) -> int:
    """Tells the coordinator of completed work, oldest first, at most `limit`; returns how much it has confirmed.

    Call it after each completion and every few seconds: what could not be told stays for the next time, also after a
    restart. Telling twice does no harm.
    """
    confirmed = 0
    for work in await barrier.undelivered(limit):
        try:
            await complete_step(work.request(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                logger.info("the coordinator is away; completed steps are told later: %s", error.details())
                break
            if error.code() not in FINAL_CODES:
                logger.warning("step %s of saga %s is told later: %s", work.step_id, work.saga_id, error.details())
                continue
            logger.warning("step %s of saga %s takes no answer: %s", work.step_id, work.saga_id, error.details())
        await barrier.delivered(work)
        confirmed += 1
    return confirmed
