"""sagactl get, list, events and stats: look at sagas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, TypeVar

from cyclopts import Parameter

from sagad.v1 import admin_service_pb2, saga_pb2
from sagad_client.commands.exits import OK, UsageError
from sagad_client.commands.filters import NO_FILTER, FilterOptions
from sagad_client.commands.inputs import NOT_NEGATIVE
from sagad_client.commands.session import Session, SessionParameter
from sagad_client.durations import format_duration
from sagad_client.pages import Pages
from sagad_client.terminal.output import Fields, Rows
from sagad_client.terminal.text import saga_state
from sagad_client.terminal.views import (
    EVENT_HEADERS,
    SAGA_HEADERS,
    SAGA_OPTIONAL,
    event_row,
    saga_row,
    saga_views,
    stats_views,
)

Item = TypeVar("Item")

LimitOption = Annotated[int, Parameter(validator=NOT_NEGATIVE, help="Show at most so many; 0 shows all. Default 50.")]


async def get(
    saga_id: Annotated[str, Parameter(help="The saga.")],
    /,
    *,
    basic: Annotated[bool, Parameter(help="Leave inputs and outputs out.")] = False,
    session: SessionParameter,
) -> int:
    """Show a saga: its state, its steps, and what needs an operator."""
    view = saga_pb2.SAGA_VIEW_BASIC if basic else saga_pb2.SAGA_VIEW_FULL
    async with session.client() as client:
        saga = await client.get(saga_id, view=view)
    session.output.show(saga, *saga_views(saga))
    return OK


async def list_(
    *,
    filters: FilterOptions = NO_FILTER,
    limit: LimitOption = 50,
    full: Annotated[bool, Parameter(help="With inputs and outputs (in -o json and yaml).")] = False,
    session: SessionParameter,
) -> int:
    """List sagas, newest first."""
    view = saga_pb2.SAGA_VIEW_FULL if full else saga_pb2.SAGA_VIEW_BASIC
    async with session.client() as client:
        pages = client.list(filters.to_filter(), page_size=_page_size(limit), view=view)
        await session.output.stream(first(pages, limit), SAGA_HEADERS, saga_row, SAGA_OPTIONAL)
    return OK


async def events(
    saga_id: Annotated[str, Parameter(help="The saga.")],
    /,
    *,
    limit: LimitOption = 0,
    full: Annotated[bool, Parameter(help="With inputs and outputs (in -o json and yaml).")] = False,
    session: SessionParameter,
) -> int:
    """List what has happened to a saga, oldest first."""
    view = saga_pb2.SAGA_VIEW_FULL if full else saga_pb2.SAGA_VIEW_BASIC
    async with session.client() as client:
        pages = client.events(saga_id, page_size=_page_size(limit), view=view)
        await session.output.stream(first(pages, limit), EVENT_HEADERS, event_row)
    return OK


async def stats(
    *,
    filters: FilterOptions = NO_FILTER,
    service: Annotated[bool, Parameter(help="Show what this node of sagad has done and holds instead.")] = False,
    session: SessionParameter,
) -> int:
    """Count sagas by state, with their durations."""
    async with session.client() as client:
        if service:
            if filters != NO_FILTER:
                raise UsageError("--service counts all that the node has done: leave the filters out")
            _show_service(session, await client.admin.service_stats())
        else:
            result = await client.stats(filters.to_filter())
            session.output.show(result, *stats_views(result))
    return OK


async def first(pages: Pages[Item], limit: int) -> AsyncIterator[Item]:
    """The first items of a list; all of them where the limit is 0."""
    count = 0
    async for item in pages:
        yield item
        count += 1
        if count == limit:
            return


def _page_size(limit: int) -> int:
    return min(limit, 500) or 500


def _show_service(session: Session, stats: admin_service_pb2.GetServiceStatsResponse) -> None:
    fields = [
        ("up since", format_duration(stats.uptime)),
        ("started", str(stats.started_total)),
        ("in memory", str(stats.sagas_in_memory)),
        ("calls in flight", str(stats.calls_in_flight)),
        ("write queue", str(stats.write_queue)),
        ("commits", str(stats.commits_total)),
        ("transitions", str(stats.transitions_total)),
        ("watches", str(stats.watches)),
    ]
    rows = [(saga_state(entry.state), str(entry.count)) for entry in stats.ended_total]
    session.output.show(stats, Fields(fields), Rows(("ENDED", "SAGAS"), rows))
