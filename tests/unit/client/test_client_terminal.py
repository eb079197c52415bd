import enum
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import yaml
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from sagad.v1 import admin_service_pb2, common_pb2, saga_pb2, saga_service_pb2
from sagad_client.commands.audit import AuditKindName
from sagad_client.commands.filters import CategoryName, ParkingName, StateName
from sagad_client.commands.inputs import parse_instant
from sagad_client.commands.repair import SkipOutcomeName
from sagad_client.definition_files import parse_definitions
from sagad_client.payloads import to_payload
from sagad_client.terminal import text
from sagad_client.terminal.board import Board
from sagad_client.terminal.output import Fields, Form, Output, Rows, plain
from sagad_client.terminal.views import event_row, parked_rows, saga_views

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rendered(form: Form, views: list[Fields | Rows], data: object = None, *, terminal: bool = False) -> str:
    stdout = Terminal() if terminal else io.StringIO()
    Output(form, stdout, io.StringIO()).show(data, *views)
    return stdout.getvalue()


@pytest.mark.parametrize(
    ("options", "names", "prefix"),
    [
        (StateName, saga_pb2.SagaState.DESCRIPTOR, "SAGA_STATE_"),
        (ParkingName, saga_pb2.ParkingReason.DESCRIPTOR, "PARKING_REASON_"),
        (CategoryName, common_pb2.FailureCategory.DESCRIPTOR, "FAILURE_CATEGORY_"),
        (AuditKindName, admin_service_pb2.AuditKind.DESCRIPTOR, "AUDIT_KIND_"),
        (SkipOutcomeName, saga_service_pb2.SkipOutcome.DESCRIPTOR, "SKIP_OUTCOME_"),
    ],
)
def test_every_value_of_the_contract_can_be_chosen(
    options: type[enum.Enum], names: EnumDescriptor, prefix: str
) -> None:
    expected = {value.name.removeprefix(prefix): value.number for value in names.values if value.number}
    assert {option.name: option.value for option in options} == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31T12:00", "2026-01-31T12:00:00Z"),
        ("1h", "2026-01-31T11:00:00Z"),
        ("1d12h", "2026-01-30T00:00:00Z"),
    ],
)
def test_a_time_is_a_date_or_so_long_ago(argument: str, expected: str) -> None:
    assert parse_instant(argument, NOW).ToJsonString() == expected


@pytest.mark.parametrize("argument", ["", "noon", "1", "-1h", "99999999d"])
def test_what_is_no_time_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_instant(argument, NOW)


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert text.printable("a\x1b[2Jb\x00\x9b\u202ec\nd") == "a\\x1b[2Jb\\x00\\x9b\\u202ec\\nd"
    assert text.printable("Grüße 日本 😀") == "Grüße 日本 😀"


def test_a_value_that_a_newer_server_knows_is_shown_as_its_number() -> None:
    state: saga_pb2.SagaState.ValueType = 99  # type: ignore[assignment]
    assert str(text.saga_state(state)) == "99"


def test_times_are_shown_in_utc_to_the_millisecond() -> None:
    assert text.instant(Timestamp(seconds=1769860800, nanos=5_999_999)) == "2026-01-31T12:00:00.005Z"


def test_a_pipe_gets_tabs_and_a_terminal_gets_columns() -> None:
    views: list[Fields | Rows] = [Rows(("A", "B"), [("x", text.saga_state(saga_pb2.SAGA_STATE_SUCCEEDED))])]
    assert rendered(Form.TABLE, views) == "A\tB\nx\tSUCCEEDED\n"
    shown = rendered(Form.TABLE, views, terminal=True)
    assert "\x1b[32mSUCCEEDED" in shown
    assert "\t" not in shown


def test_markup_in_values_is_no_markup() -> None:
    views: list[Fields | Rows] = [Fields([("name", "[bold]x[/bold] :smile:")])]
    assert "[bold]x[/bold] :smile:" in rendered(Form.TABLE, views, terminal=True)


def test_json_and_yaml_say_the_same_and_keep_the_language() -> None:
    saga = saga_pb2.Saga(saga_id="Größe", revision=7, input=to_payload({"n": 1, "x": None}))
    as_json, as_yaml = rendered(Form.JSON, [], saga), rendered(Form.YAML, [], saga)
    assert json.loads(as_json) == yaml.safe_load(as_yaml) == plain(saga)
    assert "Größe" in as_json
    assert "Größe" in as_yaml
    assert plain(saga)["input"] == {"json": {"n": 1, "x": None}}


async def test_a_streamed_list_is_one_document_in_every_form() -> None:
    async def sagas(count: int) -> AsyncIterator[saga_pb2.Saga]:
        for number in range(count):
            yield saga_pb2.Saga(saga_id=f"s{number}")

    for count in (0, 1, 3):
        for form, read in ((Form.JSON, json.loads), (Form.YAML, yaml.safe_load)):
            stdout = io.StringIO()
            await Output(form, stdout, io.StringIO()).stream(sagas(count), ("SAGA",), lambda saga: [saga.saga_id])
            assert [saga["sagaId"] for saga in read(stdout.getvalue())] == [f"s{n}" for n in range(count)]


def test_a_parked_saga_shows_the_commands_that_help() -> None:
    saga = saga_pb2.Saga(saga_id="s", state=saga_pb2.SAGA_STATE_PARKED)
    saga.parkings.add(
        reason=saga_pb2.PARKING_REASON_STEP_REFUSED, step_id="ship", allowed_calls=["RetrySaga", "SkipStep"]
    )
    shown = rendered(Form.TABLE, list(saga_views(saga)))
    assert "ship\tSTEP_REFUSED\t1970-01-01T00:00:00.000Z\tsagactl retry s; sagactl skip s ship" in shown


def test_an_event_tells_what_changed_who_asked_and_why() -> None:
    event = saga_pb2.SagaEvent(
        revision=9,
        state=saga_pb2.SAGA_STATE_RUNNING,
        cause=saga_pb2.EVENT_CAUSE_RETRY_CALLED,
        actor="ada",
        reason="mended",
    )
    event.changes.add(step_id="ship", state=saga_pb2.STEP_STATE_RUNNING, attempt=2)
    row = [str(cell) for cell in event_row(event)]
    assert [row[0], *row[2:]] == ["9", "RUNNING", "RETRY_CALLED", "ship RUNNING attempt 2", "by ada; because mended"]


def test_a_board_shows_each_step_as_the_last_message_left_it() -> None:
    board = Board("s")
    snapshot = saga_pb2.Saga(definition_id="order", version="1.0.0", state=saga_pb2.SAGA_STATE_RUNNING)
    snapshot.steps.add(step_id="reserve", state=saga_pb2.STEP_STATE_RUNNING, attempt=1)
    snapshot.steps.add(step_id="charge", state=saga_pb2.STEP_STATE_NOT_STARTED)
    board.apply(saga_service_pb2.WatchSagaResponse(revision=1, snapshot=snapshot))
    event = saga_pb2.SagaEvent(state=saga_pb2.SAGA_STATE_COMPENSATING)
    failure = common_pb2.Failure(category=common_pb2.FAILURE_CATEGORY_BUSINESS, reason="NO_MONEY")
    event.changes.add(step_id="charge", state=saga_pb2.STEP_STATE_REFUSED, attempt=1, failure=failure)
    board.apply(saga_service_pb2.WatchSagaResponse(revision=2, event=event))
    console = Console(file=io.StringIO(), width=100)
    console.print(board)
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[0] == ["s", "order", "1.0.0", "COMPENSATING", "revision", "2"]
    assert lines[2:4] == [["reserve", "RUNNING", "1"], ["charge", "REFUSED", "1", "BUSINESS", "NO_MONEY"]]


def test_a_definition_shown_as_yaml_is_a_definition_file_again() -> None:
    (definition,) = parse_definitions('{"definition_id": "a", "version": "1.0.0", "timeout": "5m", "active": false}')
    assert parse_definitions(rendered(Form.YAML, [], definition)) == [definition]
    assert parse_definitions(rendered(Form.JSON, [], [definition, definition]), json=True) == [definition] * 2


def test_each_parking_is_a_row_with_what_can_be_done_and_a_command_to_paste() -> None:
    saga = saga_pb2.Saga(saga_id="s", definition_id="order", version="1.0.0", revision=7)
    step = {"reason": saga_pb2.PARKING_REASON_STEP_REFUSED, "step_id": "ship"}
    saga.parkings.add(**step, allowed_calls=["RetrySaga", "SkipStep", "AbandonSaga"])
    saga.parkings.add(reason=saga_pb2.PARKING_REASON_INTERNAL, allowed_calls=["RetrySaga", "CompensateSaga"])
    rows = [[str(cell) for cell in row] for row in parked_rows(saga)]
    assert [row[:4] + row[5:] for row in rows] == [
        [
            "s",
            "order 1.0.0",
            "ship",
            "STEP_REFUSED",
            "retried, skipped, abandoned",
            'sagactl retry s --step ship --revision 7 --reason "..."',
        ],
        [
            "s",
            "order 1.0.0",
            "the saga",
            "INTERNAL",
            "retried, compensated",
            'sagactl retry s --revision 7 --reason "..."',
        ],
    ]
