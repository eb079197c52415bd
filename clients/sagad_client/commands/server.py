"""sagactl info, health, participants, nodes, drain and purge: look after the server."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from sagad.v1 import admin_service_pb2
from sagad_client.commands.exits import OK, UNAVAILABLE, UsageError
from sagad_client.commands.filters import NO_FILTER, FilterOptions
from sagad_client.commands.inputs import NOT_NEGATIVE
from sagad_client.commands.session import SessionParameter
from sagad_client.durations import format_duration
from sagad_client.terminal.output import Cell, Fields, Rows
from sagad_client.terminal.text import instant, printable

_MAX_PURGE = 10_000  # a call
_BREAKERS = {
    admin_service_pb2.BREAKER_STATE_CLOSED: "closed",
    admin_service_pb2.BREAKER_STATE_OPEN: "open",
    admin_service_pb2.BREAKER_STATE_HALF_OPEN: "half open",
}


async def info(*, session: SessionParameter) -> int:
    """Show what the server is: its version, its node, its database."""
    async with session.client() as client:
        answer = await client.admin.server_info()
    replication = admin_service_pb2.Replication.Name(answer.replication).removeprefix("REPLICATION_")
    fields = [
        ("sagad", answer.version),
        ("name", answer.name),
        *((f"label {key}", value) for key, value in sorted(answer.labels.items())),
        ("node", f"{answer.node_name}, incarnation {answer.incarnation}"),
        ("started", instant(answer.start_time)),
        ("postgres", answer.postgres_version or "none"),
        ("schema", str(answer.schema_version)),
        ("replication", replication),
    ]
    session.output.show(answer, Fields([(name, printable(value)) for name, value in fields]))
    return OK


async def health(*, session: SessionParameter) -> int:
    """Check each component of the server now; ends with 3 if it cannot work."""
    async with session.client() as client:
        answer = await client.admin.health_details()
    rows = [
        (
            component.name,
            _yes_no(component.healthy),
            "yes" if component.required else "no",
            format_duration(component.latency),
            printable(component.message),
        )
        for component in answer.components
    ]
    headers = ("COMPONENT", "HEALTHY", "REQUIRED", "LATENCY", "MESSAGE")
    session.output.show(answer, Fields([("healthy", _yes_no(answer.healthy))]), Rows(headers, rows))
    return OK if answer.healthy else UNAVAILABLE


async def participants(*, session: SessionParameter) -> int:
    """List the participants that the server knows, and whether they answer."""
    async with session.client() as client:
        answer = await client.admin.participants()
    rows = [
        (
            each.name,
            each.target,
            "yes" if each.tls else "no",
            format_duration(each.step_timeout),
            _yes_no(each.reachable),
            _BREAKERS.get(each.breaker, "?"),
            "session" if each.session else "unary",
            f"{each.in_flight}+{each.queued}",
            ", ".join(each.actions),
            printable(each.message),
        )
        for each in answer
    ]
    headers = ("NAME", "TARGET", "TLS", "TIMEOUT", "REACHABLE", "BREAKER", "BY", "CALLS+QUEUED", "ACTIONS", "MESSAGE")
    session.output.show(answer, Rows(headers, rows))
    return OK


async def nodes(*, session: SessionParameter) -> int:
    """List the nodes that serve the database, and how many sagas each drives."""
    async with session.client() as client:
        answer = await client.admin.nodes()
    rows = [
        (
            each.node_name,
            _yes_no(each.state == admin_service_pb2.NodeState.NODE_STATE_LIVE),
            str(each.incarnation),
            instant(each.start_time),
            each.address,
            str(each.sagas),
        )
        for each in answer
    ]
    session.output.show(answer, Rows(("NODE", "LIVE", "INCARNATION", "STARTED", "ADDRESS", "SAGAS"), rows))
    return OK


async def drain(node: str, *, session: SessionParameter) -> int:
    """Stop a node as SIGTERM does: it ends its calls under way, and hands its sagas over.

    Parameters
    ----------
    node
        Its name, as `sagactl nodes` shows it.
    """
    async with session.client() as client:
        await client.admin.drain(node)
    session.output.show({"draining": node}, Fields([("draining", printable(node))]))
    return OK


async def purge(
    *,
    filters: FilterOptions = NO_FILTER,
    limit: Annotated[
        int, Parameter(validator=NOT_NEGATIVE, help="Purge at most so many; 0 purges all. Default 1000.")
    ] = 1000,
    dry_run: Annotated[bool, Parameter(help="Count only, up to --limit or 10000, and purge nothing.")] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], help="Do not ask.")] = False,
    session: SessionParameter,
) -> int:
    """Remove the history of ended sagas; that they have ended, and how, stays known for 90 days."""
    selected = filters.to_filter()
    if not dry_run and not yes:
        _confirm("all ended sagas" if filters == NO_FILTER else "the ended sagas that match")
    purged, more = 0, True
    async with session.client() as client:
        while more and (not limit or purged < limit):
            batch = min(limit - purged if limit else _MAX_PURGE, _MAX_PURGE)
            answer = await client.admin.purge(selected, limit=batch, dry_run=dry_run)
            purged, more = purged + answer.purged, answer.more
            if dry_run or not answer.purged:
                break
    verb = "would purge" if dry_run else "purged"
    session.output.show(
        {"purged": purged, "more": more}, Fields([(verb, str(purged)), ("more match", "yes" if more else "no")])
    )
    return OK


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError("purge asks before it removes anything: give --yes, or look first with --dry-run")
    sys.stderr.write(f"Remove the history of {what}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was purged")


def _yes_no(value: bool) -> Cell:
    return Text("yes", "green") if value else Text("no", "bold red")
