"""Calls that steer a saga: undo it, answer its steps, repair it."""
# ruff: noqa: A002 (`input` and `filter` are the contract's own words)

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import cached_property
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.common_pb2 import StepOutcome
from sagad.v1.saga_pb2 import Saga, SagaFilter
from sagad.v1.saga_service_pb2_grpc import SagaServiceStub
from sagad_client.connection import Connection, Repeat
from sagad_client.errors import from_rpc_error
from sagad_client.payloads import PayloadLike, to_payload

if TYPE_CHECKING:
    from sagad.v1.saga_service_pb2_grpc import SagaServiceAsyncStub


class Steering:
    """The calls of a Client that change a saga that runs, or has run."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.namespace = namespace
        self._connection = connection

    @cached_property
    def _stub(self) -> SagaServiceAsyncStub:
        return SagaServiceStub(self._connection.channel)

    async def compensate(self, saga_id: str, *, reason: str = "") -> Saga:
        """Stop going forward and undo what may have happened. Changes nothing on a saga that compensates already.

        Raises:
            FailedPrecondition: PIVOT_IN_FLIGHT, PAST_PIVOT, or the saga is abandoned.
        """
        request = pb.CompensateSagaRequest(namespace=self.namespace, saga_id=saga_id, reason=reason)
        return (await self._connection.call(self._stub.CompensateSaga, request)).saga

    async def complete_step(self, saga_id: str, step_id: str, completion_token: str, outcome: StepOutcome) -> Saga:
        """Answer a step, or a compensation, that is pending. The same outcome again changes nothing.

        Args:
            saga_id: the saga.
            step_id: its step.
            completion_token: as it came to the participant with the call.
            outcome: made by `succeeded(output)` or `failed(reason, message)`.

        Raises:
            FailedPrecondition: OUTCOME_CONFLICT or STEP_CLOSED. PermissionDenied: wrong token.
        """
        request = pb.CompleteStepRequest(
            namespace=self.namespace,
            saga_id=saga_id,
            step_id=step_id,
            completion_token=completion_token,
            outcome=outcome,
        )
        return (await self._connection.call(self._stub.CompleteStep, request)).saga

    async def retry(
        self, saga_id: str, *, revision: int, reason: str, step_id: str = "", input: PayloadLike = None
    ) -> Saga:
        """Give what is parked new attempts.

        Args:
            saga_id: the saga.
            revision: the one the caller has seen and decided on.
            reason: for people, 1-500 characters.
            step_id: the parked step; empty means all that is parked.
            input: replaces the step's input; only with step_id, and where the action cannot have happened.

        Raises:
            Aborted: the revision has moved on. FailedPrecondition: the saga does not allow it.
        """
        request = pb.RetrySagaRequest(
            namespace=self.namespace,
            saga_id=saga_id,
            revision=revision,
            reason=reason,
            step_id=step_id,
            input=to_payload(input),
        )
        return (await self._connection.call(self._stub.RetrySaga, request, repeat=Repeat.GUARDED)).saga

    async def skip_step(
        self,
        saga_id: str,
        step_id: str,
        *,
        revision: int,
        reason: str,
        outcome: pb.SkipOutcome.ValueType = pb.SKIP_OUTCOME_UNSPECIFIED,
        output: PayloadLike = None,
    ) -> Saga:
        """Settle a parked step by hand.

        Args:
            saga_id: the saga.
            step_id: the parked step.
            revision: the one the caller has seen and decided on.
            reason: for people, 1-500 characters.
            outcome: what became of a pivot whose outcome is unknown; required for such a one.
            output: that the step counts as having given; not for compensations.

        Raises:
            Aborted: the revision has moved on. FailedPrecondition: the saga does not allow it.
        """
        request = pb.SkipStepRequest(
            namespace=self.namespace,
            saga_id=saga_id,
            revision=revision,
            reason=reason,
            step_id=step_id,
            outcome=outcome,
            output=to_payload(output, "output"),
        )
        return (await self._connection.call(self._stub.SkipStep, request, repeat=Repeat.GUARDED)).saga

    async def repair(
        self,
        action: pb.RepairAction.ValueType,
        filter: SagaFilter,
        *,
        reason: str,
        limit: int = 0,
        dry_run: bool = False,
    ) -> AsyncGenerator[pb.RepairSagasResponse, None]:
        """Retry, abandon or compensate all that a filter selects; gives messages that tell how far it is.

        A stream that breaks is not opened again: what was done stays done, and the same call again goes on. Leave the
        iteration by `aclose()` (`contextlib.aclosing`).

        Args:
            action: to each saga.
            filter: of the sagas; for REPAIR_ACTION_COMPENSATE it must name states.
            reason: for people, 1-500 characters.
            limit: of sagas in this call, 0-10,000; 0 means 1,000.
            dry_run: change nothing, and tell what would be refused.

        Raises:
            SagadError: the call was refused, or the stream broke. What a saga is refused with is in the messages.
        """
        request = pb.RepairSagasRequest(
            namespace=self.namespace, filter=filter, action=action, reason=reason, limit=limit, dry_run=dry_run
        )
        call = self._stub.RepairSagas(request)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    async def abandon(self, saga_id: str, *, revision: int, reason: str) -> Saga:
        """End a parked saga without calling anybody. Arguments and errors as for `retry`."""
        request = pb.AbandonSagaRequest(namespace=self.namespace, saga_id=saga_id, revision=revision, reason=reason)
        return (await self._connection.call(self._stub.AbandonSaga, request, repeat=Repeat.GUARDED)).saga
