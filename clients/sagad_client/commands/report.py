"""sagactl report: what has become of sagas, from the read model and not from the coordinator."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from google.protobuf.timestamp_pb2 import Timestamp

from sagad_client.commands.exits import OK, REFUSED, UNAVAILABLE, UsageError
from sagad_client.commands.inputs import InstantOption
from sagad_client.commands.session import SessionParameter
from sagad_client.durations import format_duration, to_duration
from sagad_client.terminal.output import Cell, Rows, View

if TYPE_CHECKING:
    from sagad_client.report import Durations, Outcomes, Report

_DEFAULT_SPAN = timedelta(days=30)
_OUTCOME_HEADERS = ("STARTED", "SUCCEEDED", "COMPENSATED", "ABANDONED", "PARKED", "MOVING", "SUCCESS")
_FAILURE_HEADERS = ("FAILED ON", "DEFINITION", "STEP", "CATEGORY", "FAILURES", "SAGAS")


async def report(
    *,
    definition: Annotated[str, Parameter(help="Definition, by its id; none shows all.")] = "",
    created_after: Annotated[
        InstantOption | None,
        Parameter(help="Sagas created then or later: 2026-01-31, or 7d for so long ago. Default 30d."),
    ] = None,
    created_before: Annotated[InstantOption | None, Parameter(help="Sagas created before then.")] = None,
    mongo_url: Annotated[
        str,
        Parameter(
            env_var="SAGAD_MONGO__URL",
            help="MongoDB, such as mongodb://USER:PASSWORD@HOST; in the environment nobody else can read the password.",
        ),
    ] = "",
    mongo_database: Annotated[
        str, Parameter(env_var="SAGAD_MONGO__DATABASE", help="Database of the read model; default sagad.")
    ] = "sagad",
    session: SessionParameter,
) -> int:
    """Report how sagas have ended, how long they took, and which steps failed on which day.

    It reads what sagad project keeps in MongoDB, and asks no server of sagad. Days are those of UTC.
    """
    if not mongo_url:
        raise UsageError("--mongo-url, or SAGAD_MONGO__URL, must say where the read model is: mongodb://HOST:27017")
    try:
        from pymongo.errors import ConnectionFailure, PyMongoError

        from sagad_client.report import Reports, Selection, UrlRefused
    except ImportError as error:
        raise UsageError(f"sagactl report needs the extra `mongo`: pip install 'sagad[mongo]' ({error})") from error
    selection = Selection(
        session.namespace,
        _datetime(created_after) or datetime.now(UTC) - _DEFAULT_SPAN,
        _datetime(created_before),
        definition,
    )
    try:
        async with Reports(mongo_url, mongo_database) as reports:
            result = await reports.report(selection)
    except UrlRefused as error:
        raise UsageError(f"--mongo-url: {error}") from None
    except PyMongoError as error:
        away = isinstance(error, ConnectionFailure) or error.timeout
        session.output.note(f"MongoDB {'is away' if away else 'refuses'}: {str(error).partition(', Timeout:')[0]}")
        return UNAVAILABLE if away else REFUSED
    session.output.show(_plain(result), *_views(result))
    if result.incomplete:
        session.output.note(f"{result.incomplete} sagas are incomplete: the topic lacked some of their events")
    return OK


def _datetime(time: Timestamp | None) -> datetime | None:
    return None if time is None else time.ToDatetime(UTC)


def _views(result: Report) -> Iterable[View]:
    definitions = [
        [name, *_outcome_cells(outcomes), *map(_seconds, (durations.p50_s, durations.p95_s, durations.p99_s))]
        for name, (outcomes, durations) in result.by_definition.items()
    ]
    yield Rows(("DEFINITION", *_OUTCOME_HEADERS, "P50", "P95", "P99"), definitions)
    days = [[day, *_outcome_cells(outcomes)] for day, outcomes in result.by_day.items()]
    yield Rows(("CREATED ON", *_OUTCOME_HEADERS), days)
    failures = [
        [each.day, each.definition_id, each.step_id, each.category, str(each.failures), str(each.sagas)]
        for each in result.failures
    ]
    yield Rows(_FAILURE_HEADERS, failures)


def _outcome_cells(outcomes: Outcomes) -> list[Cell]:
    counts = (
        outcomes.started,
        *(outcomes.states[state] for state in ("SUCCEEDED", "COMPENSATED", "ABANDONED", "PARKED")),
        outcomes.moving,
    )
    rate = outcomes.success_rate
    return [*map(str, counts), "" if rate is None else f"{rate:.1%}"]


def _seconds(duration_s: float | None) -> Cell:
    return "" if duration_s is None else format_duration(to_duration(duration_s))


def _plain(result: Report) -> dict[str, Any]:
    return {
        "definitions": [
            {"definitionId": name, **_plain_outcomes(outcomes), **_plain_durations(durations)}
            for name, (outcomes, durations) in result.by_definition.items()
        ],
        "days": [{"day": day, **_plain_outcomes(outcomes)} for day, outcomes in result.by_day.items()],
        "failures": [
            {
                "day": each.day,
                "definitionId": each.definition_id,
                "stepId": each.step_id,
                "category": each.category,
                "failures": each.failures,
                "sagas": each.sagas,
            }
            for each in result.failures
        ],
        "incomplete": result.incomplete,
    }


def _plain_outcomes(outcomes: Outcomes) -> dict[str, Any]:
    plain: dict[str, Any] = {"started": outcomes.started, "byState": dict(sorted(outcomes.states.items()))}
    if outcomes.success_rate is not None:
        plain["successRate"] = outcomes.success_rate
    return plain


def _plain_durations(durations: Durations) -> dict[str, str]:
    named = {"durationP50": durations.p50_s, "durationP95": durations.p95_s, "durationP99": durations.p99_s}
    return {name: f"{duration_s:.3f}s" for name, duration_s in named.items() if duration_s is not None}
