"""sagactl watch without a saga: follow all that a filter selects."""

from __future__ import annotations

from contextlib import aclosing

from rich.live import Live

from sagad.v1.saga_pb2 import SagaFilter
from sagad.v1.saga_service_pb2 import WatchedEvent
from sagad_client.client import Client
from sagad_client.commands.sagas import first
from sagad_client.terminal.output import Output
from sagad_client.terminal.sagas_board import SagasBoard
from sagad_client.terminal.views import event_row

_MARGIN = 4  # lines of a terminal that are not rows
_REFRESHES_PER_S = 4


async def follow_all(client: Client, output: Output, selection: SagaFilter, resume_token: str) -> None:
    """Show sagas for ever: in a terminal as a table, in a pipe a line for each event. Raises SagadError."""
    if output.is_terminal:
        await _follow_by_table(client, output, selection, resume_token)
    else:
        await _follow_by_lines(client, output, selection, resume_token)


async def _follow_by_lines(client: Client, output: Output, selection: SagaFilter, resume_token: str) -> None:
    async with aclosing(client.watch_all(selection, resume_token=resume_token)) as events:
        async for watched in events:
            output.record(watched, line_of(watched))


async def _follow_by_table(client: Client, output: Output, selection: SagaFilter, resume_token: str) -> None:
    most = max(output.console.height - _MARGIN, 1)
    board = SagasBoard(most, selection)
    begun = bool(resume_token)
    seen = SagaFilter()
    seen.CopyFrom(selection)
    seen.ClearField("states")  # the board has to see sagas leave them
    with Live(board, console=output.console, refresh_per_second=_REFRESHES_PER_S):
        async with aclosing(client.watch_all(seen, resume_token=resume_token, heartbeats=True)) as events:
            async for watched in events:
                board.apply(watched)
                if not begun:  # from here on nothing is missed: how do sagas stand?
                    begun = True
                    async for saga in first(client.list(selection, page_size=min(most, 500)), most):
                        board.add(saga)


def line_of(watched: WatchedEvent) -> str:
    """An event as one line: saga, revision, time, state, cause, steps, note; tabs in between."""
    return "\t".join([watched.event.saga_id, *(str(cell) for cell in event_row(watched.event))])
