"""The audit log as the services write and show it."""

from collections.abc import Mapping

import structlog
from google.protobuf.json_format import MessageToDict

from sagad.v1 import admin_service_pb2 as pb
from sagad.v1.saga_pb2 import SagaFilter
from sagad_server.api.conversions import read_time
from sagad_server.api.interceptor import actor
from sagad_server.api.paging import Page, Pages
from sagad_server.api.steering import DEFAULT_NAMESPACE
from sagad_server.domain.checks import Bounds
from sagad_server.domain.errors import SagadError
from sagad_server.domain.validation import RequestChecker, ValidationLimits
from sagad_server.storage.audit import AuditEntry, AuditFilter, AuditKind, AuditRow, details
from sagad_server.storage.store import Store

_ACTOR_LENGTH = Bounds(0, 500)
_AUDIT_IDS = Bounds(1, 2**63 - 1)

log = structlog.get_logger(__name__)


def by_caller(
    kind: AuditKind, subject: str, *, namespace: str = "", reason: str = "", values: Mapping[str, object] | None = None
) -> AuditEntry:
    """What the caller of the present call does; `values` are the details."""
    return AuditEntry(kind, actor.get(), subject, namespace, reason, details(values or {}))


def filter_values(message: SagaFilter) -> dict[str, object]:
    """A filter for the details."""
    return MessageToDict(message)


async def note(store: Store, entry: AuditEntry) -> None:
    """Appends what is done already, or must not wait: where the store is away, the log of this process has it."""
    try:
        await store.append_audit(entry)
    except SagadError as error:
        log.warning("audit event is not stored", audit=str(entry), error=str(error))


async def list_audit_events(
    store: Store, request: pb.ListAuditEventsRequest, limits: ValidationLimits
) -> pb.ListAuditEventsResponse:
    """A page. Raises InvalidArgument, Unavailable."""
    _check(request, limits)
    namespace, page = request.namespace or DEFAULT_NAMESPACE, Page(request.page_size)
    selection = AuditFilter(
        namespace=namespace,
        kinds=tuple(request.kinds),
        actor=request.actor,
        time_min=read_time(request, "time_min"),
        time_max=read_time(request, "time_max"),
    )
    pages = Pages("ListAuditEvents", namespace, _scope(request))
    rows = await store.list_audit(selection, pages.position(request.page_token, _read_id), page.size + 1)
    response = pb.ListAuditEventsResponse()
    for row in rows:
        message = _message(row)
        if not page.take(message):
            response.next_page_token = pages.token(str(response.events[-1].audit_id))
            break
        response.events.append(message)
    return response


def _check(request: pb.ListAuditEventsRequest, limits: ValidationLimits) -> None:
    check = RequestChecker(limits)
    check.namespace("namespace", request.namespace)
    check.enums("kinds", request.kinds, pb.AuditKind.DESCRIPTOR)
    check.text("actor", request.actor, _ACTOR_LENGTH)
    check.times(request, "time_min", "time_max")
    check.page(request.page_size, request.page_token)
    check.raise_if_any()


def _scope(request: pb.ListAuditEventsRequest) -> pb.ListAuditEventsRequest:
    """The request without what differs from page to page."""
    scope = pb.ListAuditEventsRequest()
    scope.CopyFrom(request)
    scope.ClearField("page_size")
    scope.ClearField("page_token")
    return scope


def _read_id(text: str) -> int:
    audit_id = int(text)
    if audit_id not in _AUDIT_IDS:
        raise ValueError(text)
    return audit_id


def _message(row: AuditRow) -> pb.AuditEvent:
    entry = row.entry
    message = pb.AuditEvent(
        audit_id=row.audit_id,
        namespace=entry.namespace,
        kind=pb.AuditKind.ValueType(entry.kind),
        actor=entry.actor,
        subject=entry.subject,
        reason=entry.reason,
        details=entry.details,
    )
    message.time.FromDatetime(row.time)
    return message
