"""sagactl: the command line of sagad."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from sagad_client.commands import (
    audit,
    definitions,
    exits,
    explore,
    mirror,
    parked,
    repair,
    report,
    sagas,
    server,
    start,
    timeline,
    watch,
)
from sagad_client.commands.exits import CLOSED_PIPE, INTERRUPTED, UsageError
from sagad_client.commands.session import COMMON, CommonOptions, Session
from sagad_client.errors import SagadError
from sagad_client.terminal.output import Output
from sagad_client.terminal.refusals import refusal_lines

_ABOUT = """Start, watch and repair sagas.

Results go to standard output: tables in a terminal, lines with tabs in a
pipe, ProtoJSON with -o json. All else goes to standard error."""

app = App(
    name="sagactl",
    help=_ABOUT,
    version=lambda: version("sagad"),
    help_format="plaintext",
    help_epilogue=exits.HELP,
    default_parameter=Parameter(negative="", show_default=False),
)
app.register_install_completion_command(group=Group("Setup", sort_key=90))


def _add(parent: App, group: Group | None, command: Callable[..., Any], name: str, *examples: str) -> None:
    lines = "".join(f"\n  sagactl {example}" for example in examples)
    parent.command(command, name=name, group=group, help_epilogue=f"Examples:{lines}\n\n{exits.HELP}")


_SAGAS = Group("Sagas", sort_key=1)
_REPAIR = Group("Repair", sort_key=2)
_RECIPES = Group("Definitions", sort_key=3)
_SERVER = Group("Server", sort_key=4)

_add(
    app,
    _SAGAS,
    start.start,
    "start",
    """start order --input '{"sku": "A-1"}' --label region=eu --wait""",
    "start order --id order-4711 --input @order.json --timeout 5m",
    "start order --file orders.jsonl",
)
_add(app, _SAGAS, sagas.get, "get", "get order-4711", "get order-4711 -o json | jq .state")
_add(
    app,
    _SAGAS,
    watch.watch,
    "watch",
    "watch order-4711",
    "watch order-4711 -o json | jq -c .event.state",
    "watch --state parked --label region=eu",
    "watch --definition order -o json | jq -c .event",
)
_add(
    app,
    _SAGAS,
    sagas.list_,
    "list",
    "list --state parked",
    "list --definition order --label region=eu --created-after 1h --limit 0",
    "list --category business -o json | jq .[].sagaId",
)
_add(app, _SAGAS, sagas.events, "events", "events order-4711", "events order-4711 --full -o json")
_add(
    app,
    _SAGAS,
    timeline.timeline,
    "timeline",
    "timeline order-4711",
    "timeline order-4711 -o json | jq .spans[].duration",
)
_add(app, _SAGAS, sagas.stats, "stats", "stats --definition order --created-after 24h", "stats --service")
_add(
    app,
    _SAGAS,
    report.report,
    "report",
    "report --created-after 7d",
    "report --definition order --created-after 2026-01-01 --created-before 2026-02-01 -o json | jq .failures",
)
_add(app, _REPAIR, parked.parked, "parked", "parked", "parked --definition order --parking-reason step-exhausted")
_add(
    app,
    _REPAIR,
    repair.compensate,
    "compensate",
    'compensate order-4711 --reason "customer has cancelled"',
    'compensate --all --state running --label trip=81 --reason "trip is off" --dry-run',
)
_add(
    app,
    _REPAIR,
    repair.retry,
    "retry",
    'retry order-4711 --reason "inventory is up again"',
    """retry order-4711 --step ship --input @mended.json --reason "address mended\"""",
    'retry --all --parking-reason step-exhausted --reason "carrier is up again" --dry-run',
)
_add(
    app,
    _REPAIR,
    repair.skip,
    "skip",
    'skip order-4711 ship --reason "sent by hand"',
    'skip order-4711 charge --outcome not-executed --reason "asked the bank"',
)
_add(
    app,
    _REPAIR,
    repair.abandon,
    "abandon",
    'abandon order-4711 --reason "settled outside"',
    'abandon --all --definition order --created-before 30d --reason "settled outside" --yes',
)
_add(
    app,
    _REPAIR,
    repair.complete,
    "complete",
    "complete order-4711 approve --token @token --success",
    "complete order-4711 approve --token @token --failure NOT_APPROVED",
)

definition_app = App(
    name="definition",
    help="Keep definitions: lint, explore, apply, list, get, activate, deactivate, delete.",
    group=_RECIPES,
)
app.command(definition_app)
_add(definition_app, None, explore.lint, "lint", "definition lint order.yaml", "definition lint *.yaml -o json")
_add(
    definition_app,
    None,
    explore.explore,
    "explore",
    "definition explore order.yaml",
    """definition explore order.yaml --input '{"amount": 20}' -o json | jq '.paths[] | select(.parkings)'""",
    "definition explore order.yaml -o mermaid",
)
_add(
    definition_app,
    None,
    definitions.apply,
    "apply",
    "definition apply order.yaml",
    "definition apply --dry-run *.yaml",
)
_add(definition_app, None, definitions.list_, "list", "definition list", "definition list order --active")
_add(definition_app, None, definitions.get, "get", "definition get order", "definition get order 1.0.0 -o yaml")
_add(definition_app, None, definitions.activate, "activate", "definition activate order 1.0.0")
_add(definition_app, None, definitions.deactivate, "deactivate", "definition deactivate order 1.0.0")
_add(definition_app, None, definitions.delete, "delete", "definition delete order 1.0.0")

mirror_app = App(name="mirror", help="Look after the mirror of the journal in Kafka.", group=_SERVER)
app.command(mirror_app)
_add(mirror_app, None, mirror.status, "status", "mirror status")
_add(
    mirror_app,
    None,
    mirror.resume,
    "resume",
    "mirror resume saga-events cursor --reason 'fail-over of last night'",
    "mirror resume saga-events beginning --lane 3 --reason 'topic restored'",
)
_add(mirror_app, None, mirror.remove, "remove", "mirror remove saga-events --reason 'rebuilt as saga-events-2'")

_add(app, _SERVER, server.info, "info", "info")
_add(app, _SERVER, server.health, "health", "health && echo fine")
_add(app, _SERVER, server.participants, "participants", "participants")
_add(app, _SERVER, server.nodes, "nodes", "nodes")
_add(app, _SERVER, server.drain, "drain", "drain node-2")
_add(app, _SERVER, audit.audit, "audit", "audit --after 24h", "audit --kind definition-deleted -o json")
_add(
    app,
    _SERVER,
    server.purge,
    "purge",
    "purge --ended-before 30d --dry-run",
    "purge --ended-before 30d --state succeeded --limit 0 --yes",
)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], common: CommonOptions = COMMON
) -> int:
    command, bound, ignored = app.parse_args(tokens)
    session = Session(common, Output(common.output))
    try:
        if command is not explore.explore:
            session.refuse_drawing()
        result = command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, session))
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        sys.stdout.flush()
    except SagadError as error:
        session.output.note("\n".join(refusal_lines(error, common.server)))
        return exits.code_of(error)
    except UsageError as error:
        session.output.note(str(error))
        return exits.USAGE
    return result if isinstance(result, int) else exits.OK


def run(tokens: Sequence[str]) -> int:
    """Run one command line, and return its exit code."""
    for token in tokens:
        if any("\ud800" <= char <= "\udfff" for char in token):
            sys.stderr.write(f"the argument {token!r} is not UTF-8\n")
            return exits.USAGE
    try:
        code = app.meta(tokens, result_action="return_value")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more. The interpreter's last flush must not complain about it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    return code if isinstance(code, int) else exits.OK


def main() -> None:
    """The entry point of `sagactl`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the terminal's language, nothing ends in a trace
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
