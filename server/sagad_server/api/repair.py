"""The same call of an operator to many sagas."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import grpc.aio

from sagad.v1 import saga_service_pb2 as pb
from sagad_server.api.auditing import by_caller, filter_values, note
from sagad_server.api.conversions import read_filter
from sagad_server.api.errors import read_refusal, unexpected
from sagad_server.api.interceptor import FORWARDED, Forwarder, actor
from sagad_server.api.steering import DEFAULT_NAMESPACE
from sagad_server.domain.checks import Bounds
from sagad_server.domain.decide import decide
from sagad_server.domain.errors import Elsewhere, FailedPrecondition, SagadError
from sagad_server.domain.inputs import Abandon, Compensate, Retry
from sagad_server.domain.states import ParkingReason, SagaState
from sagad_server.domain.validation import RequestChecker, ValidationLimits
from sagad_server.engine.commands import Commands
from sagad_server.engine.ports import Snapshot
from sagad_server.storage.audit import AuditKind
from sagad_server.storage.lists import MOST_SCANNED
from sagad_server.storage.rows import Key, Position
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Store

_LIMIT = Bounds(0, 10_000)
_DEFAULT_LIMIT = 1000
_PAGE = 500
_AT_ONCE = 32
"""Sagas that are repaired side by side, between two messages to the caller."""
_METHOD = "sagad.v1.SagaService/"
_ALL_REASONS = sum(1 << reason for reason in ParkingReason)

Found = tuple[Key, int]
"""A saga and the revision that it was found at."""


class Repair:
    """One call of RepairSagas: the call for one saga, at its owner where another node drives it, for each of many."""

    def __init__(
        self,
        store: Store,
        commands: Commands,
        forwarder: Forwarder,
        request: pb.RepairSagasRequest,
        limits: ValidationLimits,
    ) -> None:
        self._store = store
        self._commands = commands
        self._forwarder = forwarder
        self._request = request
        _check(request, limits)
        self._namespace = request.namespace or DEFAULT_NAMESPACE
        self._limit = request.limit or _DEFAULT_LIMIT
        self._progress = pb.RepairSagasResponse()

    async def run(self, write: Callable[[pb.RepairSagasResponse], Awaitable[None]]) -> None:
        """Repairs, and tells how far it is. Audited at its end, however it ends. Raises Unavailable."""
        found, progress = await self._select(), self._progress
        progress.more = len(found) > self._limit
        found = found[: self._limit]
        progress.selected = len(found)
        try:
            await write(progress)
            for first in range(0, len(found), _AT_ONCE):
                del progress.refusals[:]
                await asyncio.gather(*(self._count(*one) for one in found[first : first + _AT_ONCE]))
                await write(progress)
        finally:
            if not self._request.dry_run:
                await self._audit()

    async def _select(self) -> list[Found]:
        """All at first: what is repaired may no longer match, and what is refused still does."""
        selection = _selection(self._request)
        found: list[Found] = []
        after: Position | None = None
        while len(found) <= self._limit:
            size = min(_PAGE, self._limit + 1 - len(found))
            page = await self._store.list_sagas(self._namespace, selection, after, size, MOST_SCANNED)
            found += [(row.key, row.revision) for row in page.rows]
            after = page.stopped_at
            if after is None:
                break
        return found

    async def _count(self, key: Key, revision: int) -> None:
        refusal = await self._refusal(key, revision)
        if refusal is None:
            self._progress.repaired += 1
        else:
            self._progress.refused += 1
            self._progress.refusals.append(refusal)

    async def _refusal(self, key: Key, revision: int) -> pb.RepairRefusal | None:
        """Repairs one; what it was refused with. One saga whose data makes sagad raise must not stop the others."""
        try:
            await (self._try(key, revision) if self._request.dry_run else self._repair(key, revision))
        except SagadError as error:
            return pb.RepairRefusal(saga_id=key[1], reason=error.reason, message=error.message)
        except grpc.aio.AioRpcError as error:  # the other node's answer
            reason, message = read_refusal(error)
            return pb.RepairRefusal(saga_id=key[1], reason=reason, message=message)
        except Exception as error:  # noqa: BLE001 - see above
            refused = unexpected(_METHOD + "RepairSagas", error)
            return pb.RepairRefusal(saga_id=key[1], reason="INTERNAL", message=refused.message)
        return None

    async def _repair(self, key: Key, revision: int) -> None:
        reason, caller = self._request.reason, actor.get()
        try:
            match self._request.action:
                case pb.REPAIR_ACTION_RETRY:
                    await self._commands.retry(
                        key, revision=revision, step_id="", new_input=None, reason=reason, actor=caller
                    )
                case pb.REPAIR_ACTION_ABANDON:
                    await self._commands.abandon(key, revision=revision, reason=reason, actor=caller)
                case _:
                    await self._commands.compensate(key, reason=reason, actor=caller)
        except Elsewhere as elsewhere:
            if elsewhere.owner is None:
                raise
            await self._forward(elsewhere.owner, key, revision)

    async def _forward(self, owner: UUID, key: Key, revision: int) -> None:
        """As the interceptor does for the call for one saga."""
        fields: dict[str, Any] = {"namespace": key[0], "saga_id": key[1], "reason": self._request.reason}
        match self._request.action:
            case pb.REPAIR_ACTION_RETRY:
                method, data = "RetrySaga", pb.RetrySagaRequest(revision=revision, **fields).SerializeToString()
            case pb.REPAIR_ACTION_ABANDON:
                method, data = "AbandonSaga", pb.AbandonSagaRequest(revision=revision, **fields).SerializeToString()
            case _:
                method, data = "CompensateSaga", pb.CompensateSagaRequest(**fields).SerializeToString()
        await self._forwarder.forward(owner, _METHOD + method, data, ((FORWARDED, actor.get()),), None)

    async def _try(self, key: Key, revision: int) -> None:
        """Raises what the call would raise if the saga stayed as it is."""
        answer = await self._commands.get(key)
        if not isinstance(answer, Snapshot):
            raise FailedPrecondition(f"saga {key[1]!r} is purged: only its end is known", reason="PURGED")
        match self._request.action:
            case pb.REPAIR_ACTION_RETRY:
                decide(answer.saga, Retry(revision))
            case pb.REPAIR_ACTION_ABANDON:
                decide(answer.saga, Abandon(revision))
            case _:
                decide(answer.saga, Compensate())

    async def _audit(self) -> None:
        request, progress = self._request, self._progress
        action = pb.RepairAction.Name(request.action).removeprefix("REPAIR_ACTION_")
        counts = {name: getattr(progress, name) for name in ("selected", "repaired", "refused")}
        values = {"filter": filter_values(request.filter), "limit": self._limit, **counts}
        entry = by_caller(
            AuditKind.SAGAS_REPAIRED, action, namespace=self._namespace, reason=request.reason, values=values
        )
        await note(self._store, entry)


def _check(request: pb.RepairSagasRequest, limits: ValidationLimits) -> None:
    check = RequestChecker(limits)
    check.namespace("namespace", request.namespace)
    check.saga_filter("filter", request.filter)
    check.enum("action", request.action, pb.RepairAction.DESCRIPTOR, required=True)
    check.reason("reason", request.reason, required=True)
    check.number("limit", request.limit, _LIMIT)
    if request.action == pb.REPAIR_ACTION_COMPENSATE and not request.filter.states:
        check.fail("filter.states", "is empty, which would undo succeeded sagas too; name the states that are meant")
    check.raise_if_any()


def _selection(request: pb.RepairSagasRequest) -> SagaFilter:
    selection = read_filter(request.filter)
    if request.action == pb.REPAIR_ACTION_RETRY:
        return replace(selection, parking_mask=selection.parking_mask or _ALL_REASONS)
    if request.action == pb.REPAIR_ACTION_ABANDON:
        return replace(selection, states=selection.states or (SagaState.PARKED,))
    return selection
