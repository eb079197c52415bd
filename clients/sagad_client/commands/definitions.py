"""sagactl definition: keep the recipes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sagad.v1.definition_pb2 import Definition
from sagad_client.client import Client
from sagad_client.commands.exits import OK, REFUSED, UNAVAILABLE, UsageError, code_of
from sagad_client.commands.sagas import LimitOption, first
from sagad_client.commands.session import Session, SessionParameter
from sagad_client.definition_files import DefinitionFileError, load_definitions, parse_definitions
from sagad_client.errors import SagadError
from sagad_client.terminal.output import Rows
from sagad_client.terminal.refusals import refusal_lines
from sagad_client.terminal.text import printable
from sagad_client.terminal.views import DEFINITION_HEADERS, definition_row, definition_views

IdArgument = Annotated[str, Parameter(help="The definition, by its id.")]
VersionArgument = Annotated[str, Parameter(help="Its version.")]


async def apply(
    file: Annotated[
        str,
        Parameter(
            help="File of definitions, YAML or JSON; - reads YAML from standard input.", allow_leading_hyphen=True
        ),
    ],
    /,
    *more: Annotated[str, Parameter(help="More such files.")],
    dry_run: Annotated[bool, Parameter(help="Check only, and store nothing.")] = False,
    session: SessionParameter,
) -> int:
    """Store the definitions of files. What is stored already, with the same content, stays as it is."""
    loaded = load_files([file, *more])
    stored: list[Definition] = []
    code = OK
    async with session.client() as client:
        for source, definition in loaded:
            try:
                stored.append(await _create(client, session, definition, dry_run))
            except SagadError as error:
                if code_of(error) == UNAVAILABLE:
                    raise
                name = f"{source}: {definition.definition_id} {definition.version}: "
                session.output.note(name + "\n".join(refusal_lines(error, session.server)))
                code = REFUSED
    session.output.show(stored, Rows(DEFINITION_HEADERS, [definition_row(definition) for definition in stored]))
    return code


async def _create(client: Client, session: Session, definition: Definition, dry_run: bool) -> Definition:
    created = await client.definitions.create(definition, validate_only=dry_run)
    for warning in created.warnings:
        session.output.note(f"{definition.definition_id} {definition.version}: warning: {printable(warning)}")
    return created.definition


def load_files(files: list[str]) -> list[tuple[str, Definition]]:
    """The definitions of all files, each with its file. Raises UsageError with the faults of all files."""
    loaded: list[tuple[str, Definition]] = []
    faults: list[str] = []
    for file in files:
        try:
            found = parse_definitions(sys.stdin.read(), source="-") if file == "-" else load_definitions(Path(file))
            loaded += [(file, definition) for definition in found]
        except DefinitionFileError as error:
            faults.append(str(error))
        except OSError as error:
            faults.append(f"{file}: cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            faults.append(f"{file}: is not UTF-8")
    if faults:
        raise UsageError("\n".join(faults))
    return loaded


async def list_(
    definition_id: Annotated[str, Parameter(help="Only the versions of this definition.")] = "",
    /,
    *,
    active: Annotated[bool, Parameter(help="Only active ones.")] = False,
    limit: LimitOption = 0,
    session: SessionParameter,
) -> int:
    """List definitions, by id, then newest version first."""
    async with session.client() as client:
        pages = client.definitions.list(definition_id, active_only=active, page_size=500)
        await session.output.stream(first(pages, limit), DEFINITION_HEADERS, definition_row)
    return OK


async def get(
    definition_id: IdArgument,
    version: Annotated[str, Parameter(help="Its version; default: the one that a start would take.")] = "",
    /,
    *,
    session: SessionParameter,
) -> int:
    """Show a definition. With -o yaml it is a file for `sagactl definition apply`."""
    async with session.client() as client:
        definition = await client.definitions.get(definition_id, version)
    session.output.show(definition, *definition_views(definition))
    return OK


async def activate(definition_id: IdArgument, version: VersionArgument, /, *, session: SessionParameter) -> int:
    """Let new sagas of a version start."""
    async with session.client() as client:
        _show(session, await client.definitions.activate(definition_id, version))
    return OK


async def deactivate(definition_id: IdArgument, version: VersionArgument, /, *, session: SessionParameter) -> int:
    """Let no new saga of a version start; those that run go on."""
    async with session.client() as client:
        _show(session, await client.definitions.deactivate(definition_id, version))
    return OK


async def delete(definition_id: IdArgument, version: VersionArgument, /, *, session: SessionParameter) -> int:
    """Remove a version that no saga names any more."""
    async with session.client() as client:
        await client.definitions.delete(definition_id, version)
    session.output.show({"definitionId": definition_id, "version": version, "deleted": True})
    return OK


def _show(session: Session, definition: Definition) -> None:
    session.output.show(definition, Rows(DEFINITION_HEADERS, [definition_row(definition)]))
