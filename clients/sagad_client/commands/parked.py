"""sagactl parked: what needs an operator, and what to type."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from sagad.v1.saga_pb2 import SagaFilter
from sagad_client.commands.exits import OK
from sagad_client.commands.filters import NO_FILTER, FilterOptions, ParkingName
from sagad_client.commands.inputs import NOT_NEGATIVE
from sagad_client.commands.sagas import first
from sagad_client.commands.session import SessionParameter
from sagad_client.terminal.output import Form, Rows
from sagad_client.terminal.views import PARKED_HEADERS, PARKED_OPTIONAL, parked_rows

_MAX_PAGE = 500


async def parked(
    *,
    filters: FilterOptions = NO_FILTER,
    limit: Annotated[
        int, Parameter(validator=NOT_NEGATIVE, help="Show at most so many sagas; 0 shows all. Default 50.")
    ] = 50,
    session: SessionParameter,
) -> int:
    """List what is parked, newest saga first: why, since when, what can be done, and the command for it."""
    async with session.client() as client:
        sagas = first(client.list(_parked(filters), page_size=min(limit, _MAX_PAGE) or _MAX_PAGE), limit)
        if session.output.form is Form.TABLE:
            rows = [row async for saga in sagas for row in parked_rows(saga)]
            session.output.show(None, Rows(PARKED_HEADERS, rows, PARKED_OPTIONAL))
        else:
            await session.output.stream(sagas, (), lambda _: ())
    return OK


def _parked(filters: FilterOptions) -> SagaFilter:
    """Also sagas of which other branches still move."""
    selected = filters.to_filter()
    if not selected.parking_reasons:
        selected.parking_reasons.extend(reason.value for reason in ParkingName)
    return selected
