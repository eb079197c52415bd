"""sagactl audit: who has done what to the server and its definitions."""

from __future__ import annotations

import enum
from typing import Annotated

from cyclopts import Parameter

from sagad.v1 import admin_service_pb2
from sagad.v1.admin_service_pb2 import AuditEvent
from sagad_client.commands.exits import OK
from sagad_client.commands.inputs import NOT_NEGATIVE, InstantOption
from sagad_client.commands.sagas import first
from sagad_client.commands.session import SessionParameter
from sagad_client.terminal.output import Cell, When
from sagad_client.terminal.text import audit_kind, printable

_HEADERS = ("TIME", "KIND", "SUBJECT", "ACTOR", "REASON", "DETAILS")
_MAX_PAGE = 500


class AuditKindName(enum.Enum):
    """What was done."""

    DEFINITION_CREATED = admin_service_pb2.AUDIT_KIND_DEFINITION_CREATED
    DEFINITION_ACTIVATED = admin_service_pb2.AUDIT_KIND_DEFINITION_ACTIVATED
    DEFINITION_DEACTIVATED = admin_service_pb2.AUDIT_KIND_DEFINITION_DEACTIVATED
    DEFINITION_DELETED = admin_service_pb2.AUDIT_KIND_DEFINITION_DELETED
    SAGAS_PURGED = admin_service_pb2.AUDIT_KIND_SAGAS_PURGED
    NODE_DRAINED = admin_service_pb2.AUDIT_KIND_NODE_DRAINED
    SAGAS_REPAIRED = admin_service_pb2.AUDIT_KIND_SAGAS_REPAIRED
    MIRROR_RESUMED = admin_service_pb2.AUDIT_KIND_MIRROR_RESUMED
    MIRROR_REMOVED = admin_service_pb2.AUDIT_KIND_MIRROR_REMOVED


async def audit(
    *,
    kind: Annotated[tuple[AuditKindName, ...], Parameter(help="What was done; repeat it for any of several.")] = (),
    actor: Annotated[str, Parameter(help="Who did it, exactly as it is shown.")] = "",
    after: Annotated[
        InstantOption | None, Parameter(help="Then or later: 2026-01-31, 2026-01-31T12:00Z, or 1h for so long ago.")
    ] = None,
    before: Annotated[InstantOption | None, Parameter(help="Before then.")] = None,
    limit: Annotated[
        int, Parameter(validator=NOT_NEGATIVE, help="Show at most so many; 0 shows all. Default 50.")
    ] = 50,
    session: SessionParameter,
) -> int:
    """List who has changed definitions, purged, drained nodes and repaired many sagas, newest first."""
    async with session.client() as client:
        events = client.admin.audit_events(
            kinds=[each.value for each in kind],
            actor=actor,
            time_min=after,
            time_max=before,
            page_size=min(limit, _MAX_PAGE) or _MAX_PAGE,
        )
        await session.output.stream(first(events, limit), _HEADERS, _row, optional=("REASON", "DETAILS"))
    return OK


def _row(event: AuditEvent) -> list[Cell]:
    texts = (event.subject, event.actor, event.reason, event.details)
    return [When(event.time), audit_kind(event.kind), *map(printable, texts)]
