"""The same call to many sagas: what `--all` of retry, abandon and compensate does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter, validators
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sagad.v1 import saga_service_pb2 as pb
from sagad_client.commands.exits import OK, REFUSED, UsageError
from sagad_client.commands.filters import NO_FILTER, FilterOptions
from sagad_client.commands.session import Session
from sagad_client.terminal.output import Fields, Rows, View
from sagad_client.terminal.text import printable

_GROUP = Group("Many sagas", sort_key=9)
_MAX_LIMIT = 10_000


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True)
class ManyOptions:
    """For many sagas at once."""

    all: Annotated[bool, Parameter(help="All sagas that match, instead of one by its id.")] = False
    dry_run: Annotated[bool, Parameter(help="With --all: change nothing, tell what would be refused.")] = False
    limit: Annotated[
        int,
        Parameter(
            validator=validators.Number(gte=1, lte=_MAX_LIMIT),
            help="With --all: at most so many, 1-10000, the newest first. Default 1000.",
        ),
    ] = 1000
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], help="With --all: do not ask.")] = False


NOT_MANY = ManyOptions()
"""One saga."""


def is_many(saga_id: str, many: ManyOptions, filters: FilterOptions, only_one: Sequence[str] = ()) -> bool:
    """Whether many sagas are meant. `only_one` names the given options that are for one. Raises UsageError."""
    if many.all and saga_id:
        raise UsageError(f"give either the saga {printable(saga_id)} or --all")
    if many.all and only_one:
        raise UsageError(f"{', '.join(only_one)} is for one saga, and not for --all")
    if not many.all and not saga_id:
        raise UsageError("name the saga, or give --all with the options that select sagas")
    if not many.all and (many != NOT_MANY or filters != NO_FILTER):
        raise UsageError("--dry-run, --limit, --yes and the options that select sagas belong to --all")
    return many.all


async def repair_many(
    session: Session, action: pb.RepairAction.ValueType, many: ManyOptions, filters: FilterOptions, reason: str
) -> int:
    """Repair what matches, show how far it is, and return the exit code. Raises UsageError, SagadError."""
    selected = filters.to_filter()
    verb = pb.RepairAction.Name(action).removeprefix("REPAIR_ACTION_").lower()
    if not many.dry_run and not many.yes:
        _confirm(verb)
    refusals: list[pb.RepairRefusal] = []
    last = pb.RepairSagasResponse()
    bar = Progress(
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=session.output.notes,
        disable=not session.output.notes.is_terminal,
    )
    async with session.client() as client:
        messages = client.repair(action, selected, reason=reason, limit=many.limit, dry_run=many.dry_run)
        with bar:
            task = bar.add_task("", total=None)
            async with aclosing(messages):
                async for last in messages:
                    refusals += last.refusals
                    bar.update(task, total=last.selected, completed=last.repaired + last.refused)
    _show(session, many, last, refusals)
    return REFUSED if refusals else OK


def _show(
    session: Session, many: ManyOptions, last: pb.RepairSagasResponse, refusals: Sequence[pb.RepairRefusal]
) -> None:
    data = {
        "selected": last.selected,
        "repaired": last.repaired,
        "refused": last.refused,
        "more": last.more,
        "refusals": refusals,
    }
    would = "would be " if many.dry_run else ""
    fields = [
        ("selected", str(last.selected)),
        (f"{would}repaired", str(last.repaired)),
        (f"{would}refused", str(last.refused)),
        ("more match", "yes" if last.more else "no"),
    ]
    rows = [(one.saga_id, one.reason, printable(one.message)) for one in refusals]
    views: list[View] = [Fields(fields)]
    if rows:
        views.append(Rows(("REFUSED", "REASON", "MESSAGE"), rows))
    session.output.show(data, *views)


def _confirm(verb: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{verb} --all asks before it changes anything: give --yes, or look first with --dry-run")
    sys.stderr.write(f"{verb.capitalize()} all sagas that match? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was changed")
