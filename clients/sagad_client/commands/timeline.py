"""sagactl timeline: a saga's steps over time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from sagad_client.commands.exits import OK
from sagad_client.commands.session import SessionParameter
from sagad_client.terminal.timeline import chart, spans_of, timeline_document, timeline_rows

_PAGE_SIZE = 500


async def timeline(saga_id: Annotated[str, Parameter(help="The saga.")], /, *, session: SessionParameter) -> int:
    """Draw a saga's steps over time: calls, back-offs, what is pending or parked, compensations."""
    async with session.client() as client:
        events = [event async for event in client.events(saga_id, page_size=_PAGE_SIZE)]
    spans = spans_of(events)
    output = session.output
    if output.is_terminal and spans:
        output.console.print(chart(spans, datetime.now(UTC).replace(tzinfo=None), output.console))
    else:
        output.show(timeline_document(saga_id, spans), timeline_rows(spans))
    return OK
