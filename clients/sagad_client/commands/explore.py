"""sagactl definition explore, lint: failures before they happen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from sagad.v1.common_pb2 import Payload
from sagad.v1.definition_service_pb2 import SimulateDefinitionResponse
from sagad_client.commands.definitions import load_files
from sagad_client.commands.exits import OK, REFUSED, UNAVAILABLE, UsageError, code_of
from sagad_client.commands.inputs import make_payload, read_json, read_payload
from sagad_client.commands.session import Session, SessionParameter
from sagad_client.errors import SagadError
from sagad_client.terminal.mermaid import flow_chart
from sagad_client.terminal.output import Form, Rows
from sagad_client.terminal.refusals import refusal_lines
from sagad_client.terminal.simulation import (
    LINT_HEADERS,
    PATH_HEADERS,
    PATH_OPTIONAL,
    assumptions_text,
    path_row,
    warning_text,
)
from sagad_client.terminal.text import printable

FileArgument = Annotated[
    str,
    Parameter(help="File of definitions, YAML or JSON; - reads YAML from standard input.", allow_leading_hyphen=True),
]
UNCHECKED = "PARTICIPANT_UNCHECKED"
"""The code of a warning that is about a participant and not about the definition."""


async def explore(
    file: FileArgument,
    /,
    *,
    input: Annotated[  # noqa: A002
        str | None, Parameter(help="Example of a saga's input for the expressions: JSON, @file or -.")
    ] = None,
    outputs: Annotated[str | None, Parameter(help="Examples of outputs: a JSON object by step id, @file or -.")] = None,
    max_paths: Annotated[int, Parameter(help="Show so many paths at most.", validator=Number(gte=1, lte=1000))] = 1000,
    session: SessionParameter,
) -> int:
    """Show what happens when a step is refused, times out, fails at each retry or stays pending; when compensations
    fail; at the deadline; at CompensateSaga. sagad works it out by its own rules and calls nobody. With -o mermaid it
    is a flow chart."""
    loaded = load_files([file])
    if len(loaded) > 1:
        raise UsageError(f"{file} holds {len(loaded)} definitions; explore shows one: put it into a file of its own")
    example, examples = read_payload(input, "--input"), _read_outputs(outputs)
    with _asking(session):
        async with session.client() as client:
            response = await client.definitions.simulate(
                loaded[0][1], input=example, outputs=examples, max_paths=max_paths
            )
    if session.output.form is Form.MERMAID:
        session.output.line(flow_chart(response.paths))
    else:
        rows = [path_row(path) for path in response.paths]
        session.output.show(response, Rows(PATH_HEADERS, rows, PATH_OPTIONAL))
    _note(session, response)
    return OK


async def lint(
    file: FileArgument,
    /,
    *more: Annotated[str, Parameter(help="More such files.")],
    session: SessionParameter,
) -> int:
    """Show what is dangerous in the definitions of files, though it is allowed. Ends with 1 if there is anything."""
    found: list[dict[str, Any]] = []
    rows = []
    code = OK
    async with session.client() as client:
        for source, definition in load_files([file, *more]):
            try:
                with _asking(session):
                    response = await client.definitions.simulate(definition, max_paths=1)
            except SagadError as error:
                if code_of(error) == UNAVAILABLE:
                    raise
                name = f"{source}: {definition.definition_id} {definition.version}: "
                session.output.note(name + "\n".join(refusal_lines(error, session.server)))
                code = REFUSED
                continue
            found.append(
                {
                    "definitionId": definition.definition_id,
                    "version": definition.version,
                    "warnings": response.warnings,
                }
            )
            for warning in response.warnings:
                if warning.code == UNCHECKED:
                    session.output.note(warning_text(warning))
                else:
                    rows.append((definition.definition_id, warning.code, warning.field, printable(warning.message)))
    session.output.show(found, Rows(LINT_HEADERS, rows))
    return REFUSED if rows else code


@contextmanager
def _asking(session: Session) -> Iterator[None]:
    try:
        yield
    except SagadError as error:
        if code_of(error) == UNAVAILABLE:
            session.output.note("The rules are sagad's own: this needs a running one to ask, such as `sagad dev`.")
        raise


def _read_outputs(argument: str | None) -> dict[str, Payload | None]:
    if argument is None:
        return {}
    value = read_json(argument, "--outputs")
    if not isinstance(value, dict):
        raise UsageError('--outputs must be an object by step id, such as \'{"reserve": {"id": "r-1"}}\'')
    return {name: make_payload(output, f"--outputs {name}") for name, output in value.items()}


def _note(session: Session, response: SimulateDefinitionResponse) -> None:
    if response.assumptions:
        session.output.note(assumptions_text(response.assumptions) + ": see --input and --outputs")
    dangers = sum(warning.code != UNCHECKED for warning in response.warnings)
    if dangers:
        session.output.note(f"warnings: {dangers}, which sagactl definition lint shows")
    if response.left_out:
        session.output.note(f"{len(response.paths)} paths are shown, and {response.left_out} more are left out")
