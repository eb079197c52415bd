"""sagactl watch: follow a saga, or many, live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import grpc
from cyclopts import Parameter
from rich.live import Live

from sagad.v1 import saga_pb2
from sagad.v1.saga_service_pb2 import WatchSagaResponse
from sagad_client.client import Client
from sagad_client.commands.exits import NOT_SUCCEEDED, OK, UsageError
from sagad_client.commands.filters import NO_FILTER, FilterOptions
from sagad_client.commands.inputs import NOT_NEGATIVE
from sagad_client.commands.session import SessionParameter
from sagad_client.commands.watch_all import follow_all
from sagad_client.errors import DeadlineExceeded
from sagad_client.states import SETTLED
from sagad_client.terminal import text
from sagad_client.terminal.board import Board
from sagad_client.terminal.output import Output
from sagad_client.terminal.views import event_row


async def watch(
    saga_id: Annotated[str, Parameter(help="The saga; without it, all that are selected.")] = "",
    /,
    *,
    after: Annotated[
        int, Parameter(validator=NOT_NEGATIVE, help="Only what follows this revision; 0 shows the saga as it is first.")
    ] = 0,
    stay: Annotated[bool, Parameter(help="Go on watching a saga that is parked.")] = False,
    resume: Annotated[str, Parameter(help="Of many sagas: only what follows the event with this resumeToken.")] = "",
    filters: FilterOptions = NO_FILTER,
    session: SessionParameter,
) -> int:
    """Follow a saga until it has ended or is parked, or all sagas for ever.

    In a terminal it is a live table, in a pipe a line for each event, with -o json
    a line of JSON. A broken connection is resumed without a gap.
    """
    if not saga_id:
        if after or stay:
            raise UsageError("--after and --stay are for the watch of one saga: name it")
        async with session.client(patient=True) as client:
            await follow_all(client, session.output, filters.to_filter(), resume)
        return OK
    if resume or filters != NO_FILTER:
        raise UsageError("--resume and filters are for the watch of many sagas: leave them out, or the saga")
    async with session.client(patient=True) as client:
        state = await follow(client, session.output, saga_id, after=after, stay=stay)
    if state == saga_pb2.SAGA_STATE_PARKED:
        session.output.note(f"parked; sagactl get {saga_id} shows what helps")
    return OK if state == saga_pb2.SAGA_STATE_SUCCEEDED else NOT_SUCCEEDED


async def follow(
    client: Client, output: Output, saga_id: str, *, after: int = 0, stay: bool = False
) -> saga_pb2.SagaState.ValueType:
    """Show a saga until it has ended or (unless `stay`) is parked; return its last state seen. Raises SagadError."""
    if not output.is_terminal or after:
        return await _follow_by_lines(client, output, saga_id, after, stay)
    board = Board(saga_id)
    state = saga_pb2.SAGA_STATE_UNSPECIFIED
    with Live(board, console=output.console, auto_refresh=False) as live:
        async with aclosing(_messages(client, saga_id, 0, stay)) as messages:
            async for message in messages:
                board.apply(message)
                live.refresh()
                state = _state_of(message)
    return state


async def follow_for(client: Client, output: Output, saga_id: str, timeout_s: float | None) -> None:
    """Show a saga until it has ended or is parked, or the time is over. Raises SagadError, DeadlineExceeded too."""
    try:
        async with asyncio.timeout(timeout_s):
            await follow(client, output, saga_id)
    except TimeoutError:
        message = f"saga {saga_id!r} has neither ended nor parked within {timeout_s:g} s; it goes on"
        raise DeadlineExceeded(message, code=grpc.StatusCode.DEADLINE_EXCEEDED) from None


async def _follow_by_lines(
    client: Client, output: Output, saga_id: str, after: int, stay: bool
) -> saga_pb2.SagaState.ValueType:
    state = saga_pb2.SAGA_STATE_UNSPECIFIED
    async with aclosing(_messages(client, saga_id, after, stay)) as messages:
        async for message in messages:
            output.record(message, line_of(message))
            state = _state_of(message)
    if not state:  # nothing came after the revision: the saga had ended there
        state = (await client.get(saga_id, view=saga_pb2.SAGA_VIEW_BASIC)).state
    return state


async def _messages(client: Client, saga_id: str, after: int, stay: bool) -> AsyncGenerator[WatchSagaResponse, None]:
    async with aclosing(client.watch(saga_id, after)) as messages:
        async for message in messages:
            yield message
            if _state_of(message) in SETTLED and not stay:
                return


def line_of(message: WatchSagaResponse) -> str:
    """A message of a watch as one line: revision, time, state, cause, steps, note; tabs in between."""
    if message.WhichOneof("update") == "event":
        return "\t".join(str(cell) for cell in event_row(message.event))
    saga = message.snapshot
    steps = "; ".join(f"{step.step_id} {text.step_state(step.state)}" for step in saga.steps)
    time = text.instant(saga.update_time)
    return f"{message.revision}\t{time}\t{text.saga_state(saga.state)}\tSNAPSHOT\t{steps}\t"


def _state_of(message: WatchSagaResponse) -> saga_pb2.SagaState.ValueType:
    return message.event.state if message.WhichOneof("update") == "event" else message.snapshot.state
