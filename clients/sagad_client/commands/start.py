"""sagactl start: start one saga, or one for each line of a file."""
# ruff: noqa: A002 (`input` and `id` are the options' names)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from sagad.v1 import saga_pb2
from sagad.v1.saga_pb2 import Saga
from sagad_client.commands.bulk import Template, start_file
from sagad_client.commands.exits import NOT_SUCCEEDED, OK, UsageError
from sagad_client.commands.inputs import DurationOption, read_pairs, read_payload
from sagad_client.commands.session import Session, SessionParameter
from sagad_client.commands.watch import follow_for
from sagad_client.durations import seconds_of
from sagad_client.terminal.text import saga_state
from sagad_client.terminal.views import saga_views

_FILE = Group("Many sagas", sort_key=5)


async def start(
    definition: Annotated[str, Parameter(help="The definition, by its id; --file may do without.")] = "",
    /,
    *,
    input: Annotated[
        str | None, Parameter(help="Input as JSON; @FILE reads a file, - standard input.", allow_leading_hyphen=True)
    ] = None,
    id: Annotated[
        str, Parameter(help="The saga's id; the same id again starts nothing new. Default: a fresh one.")
    ] = "",
    version: Annotated[str, Parameter(help="Version of the definition; default: the highest active one.")] = "",
    label: Annotated[tuple[str, ...], Parameter(help="Label key=value to find the saga by; repeat it for more.")] = (),
    metadata: Annotated[tuple[str, ...], Parameter(help="key=value for the participants; repeat it for more.")] = (),
    timeout: Annotated[DurationOption | None, Parameter(help="The saga's deadline from its start, such as 5m.")] = None,
    wait: Annotated[bool, Parameter(help="Wait until the saga has ended or is parked, and show it meanwhile.")] = False,
    wait_timeout: Annotated[
        DurationOption | None,
        Parameter(help="Bound of --wait, such as 10m; default: 1h. With --file, of the time without any result."),
    ] = None,
    file: Annotated[
        Path | None,
        Parameter(
            group=_FILE,
            help='File with a line {"saga_id": ..., "input": ..., "labels": {...}} for each saga; '
            "without DEFINITION each line is the ProtoJSON of a StartSagaRequest. - is standard input.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    concurrency: Annotated[
        int,
        Parameter(
            validator=Number(gte=1, lte=4096),
            group=_FILE,
            help="Starts not answered yet, 1-4,096; default 2,048.",
        ),
    ] = 2048,
    session: SessionParameter,
) -> int:
    """Start a saga; when the command has ended, the saga is durable.

    With --file it starts one saga for each line, over one stream. Where that
    was cut short, the same command again goes on: a saga that is there already is
    not started twice.
    """
    wait_s = 3600.0 if wait_timeout is None else seconds_of(wait_timeout)
    template = Template(
        definition_id=definition,
        version=version,
        labels=read_pairs(label, "--label"),
        metadata=read_pairs(metadata, "--metadata"),
        timeout=timeout,
        wait=wait,
        wait_timeout_s=wait_s,
    )
    if file is None:
        if not definition:
            raise UsageError("name the DEFINITION to start, or give a --file whose lines do")
        return await _start_one(session, template, id, input)
    if id or input is not None:
        raise UsageError("--file brings ids and inputs of its own: leave --id and --input out")
    if not definition and (version or label or metadata or timeout is not None):
        raise UsageError("without DEFINITION each line says its version, labels, metadata and timeout itself")
    return await start_file(session, template, file, concurrency)


async def _start_one(session: Session, template: Template, saga_id: str, input: str | None) -> int:
    payload = read_payload(input, "--input")
    async with session.client(patient=template.wait) as client:
        saga = await client.start(
            template.definition_id,
            payload,
            saga_id=saga_id,
            version=template.version,
            labels=template.labels,
            metadata=template.metadata,
            timeout=template.timeout,
        )
        if not template.wait:
            _show_started(session, saga)
            return OK
        if session.output.is_terminal:
            await follow_for(client, session.output, saga.saga_id, template.wait_timeout_s)
        saga = await client.wait(saga.saga_id, timeout_s=template.wait_timeout_s)
    if not session.output.is_terminal:
        session.output.show(saga, *saga_views(saga))
    elif saga.state == saga_pb2.SAGA_STATE_PARKED:
        session.output.show(saga, *saga_views(saga)[2:])
    return OK if saga.state == saga_pb2.SAGA_STATE_SUCCEEDED else NOT_SUCCEEDED


def _show_started(session: Session, saga: Saga) -> None:
    output = session.output
    if output.is_terminal:
        output.line(f"{saga.saga_id} is {saga_state(saga.state)}; follow it: sagactl watch {saga.saga_id}")
    else:
        output.show(saga, *saga_views(saga)[:1])
