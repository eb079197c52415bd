"""A purge as an operator asks for it."""

from dataclasses import replace
from datetime import timedelta

from sagad.v1 import admin_service_pb2 as pb
from sagad.v1.saga_pb2 import SagaFilter as SagaFilterMessage
from sagad_server.api.auditing import by_caller, filter_values, note
from sagad_server.api.conversions import read_filter
from sagad_server.api.steering import DEFAULT_NAMESPACE
from sagad_server.domain.checks import Bounds
from sagad_server.domain.validation import RequestChecker, ValidationLimits
from sagad_server.storage.audit import AuditKind
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Store

_LIMIT = Bounds(0, 10_000)
_DEFAULT_LIMIT = 1000
_BATCH = 500
_AT_ONCE = timedelta(0)


async def purge_sagas(store: Store, request: pb.PurgeSagasRequest, limits: ValidationLimits) -> pb.PurgeSagasResponse:
    """How many were purged, and whether there are more. Raises InvalidArgument, Unavailable."""
    check = RequestChecker(limits)
    check.namespace("namespace", request.namespace)
    check.saga_filter("filter", request.filter)
    check.number("limit", request.limit, _LIMIT)
    check.raise_if_any()
    namespace, selection = request.namespace or DEFAULT_NAMESPACE, read_filter(request.filter)
    limit = request.limit or _DEFAULT_LIMIT
    if request.dry_run:
        found = (await store.purge(namespace, selection, _AT_ONCE, limit + 1, dry_run=True)).count
        return pb.PurgeSagasResponse(purged=min(found, limit), more=found > limit)
    purged = await _purge(store, namespace, selection, limit, request.filter)
    more = purged == limit and (await store.purge(namespace, selection, _AT_ONCE, 1, dry_run=True)).count > 0
    return pb.PurgeSagasResponse(purged=purged, more=more)


async def _purge(store: Store, namespace: str, selection: SagaFilter, limit: int, given: SagaFilterMessage) -> int:
    """In batches, so that no transaction is long. Audited at its end, however it ends."""
    purged = 0
    try:
        while purged < limit:
            batch = min(_BATCH, limit - purged)
            done = await store.purge(namespace, selection, _AT_ONCE, batch, dry_run=False)
            purged += done.count
            if done.count < batch:
                break
            selection = replace(selection, end_time_min=done.until)
    finally:
        values = {"filter": filter_values(given), "limit": limit, "purged": purged}
        await note(store, by_caller(AuditKind.SAGAS_PURGED, "sagas", namespace=namespace, values=values))
    return purged
