"""The live table of many sagas."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1.saga_service_pb2 import WatchedEvent
from sagad_client.commands.watch_all import line_of
from sagad_client.terminal.sagas_board import SagasBoard

RUNNING, COMPENSATING = saga_pb2.SAGA_STATE_RUNNING, saga_pb2.SAGA_STATE_COMPENSATING
SUCCEEDED = saga_pb2.SAGA_STATE_SUCCEEDED
BEGINNING = datetime(2026, 1, 31, 12, tzinfo=UTC)


def board(most: int = 10, now_s: float = 0, **selection: Any) -> SagasBoard:
    return SagasBoard(most, saga_pb2.SagaFilter(**selection), lambda: BEGINNING + timedelta(seconds=now_s))


def watched(
    saga_id: str, revision: int, state: saga_pb2.SagaState.ValueType = RUNNING, *, created_s: float = 0, at_s: float = 0
) -> WatchedEvent:
    event = saga_pb2.SagaEvent(
        saga_id=saga_id, revision=revision, state=state, definition_id="order", version="1.0.0", cause=1
    )
    event.time.FromDatetime(BEGINNING + timedelta(seconds=at_s))
    watched = WatchedEvent(event=event)
    watched.create_time.FromDatetime(BEGINNING + timedelta(seconds=created_s))
    return watched


def listed(saga_id: str, revision: int, state: saga_pb2.SagaState.ValueType = RUNNING) -> saga_pb2.Saga:
    saga = saga_pb2.Saga(saga_id=saga_id, revision=revision, state=state, definition_id="order", version="1.0.0")
    saga.create_time.FromDatetime(BEGINNING)
    saga.update_time.FromDatetime(BEGINNING)
    return saga


def drawn(board: SagasBoard) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=120)
    console.print(board)
    return [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def names(board: SagasBoard) -> list[str]:
    return [line[0] for line in drawn(board)[1:-1]]


def test_a_row_shows_a_saga_as_its_last_event_left_it() -> None:
    shown = board(now_s=65)
    shown.apply(watched("a", 1))
    refused = watched("a", 2, COMPENSATING, at_s=1)
    failure = common_pb2.Failure(category=common_pb2.FAILURE_CATEGORY_BUSINESS, reason="NO_MONEY")
    refused.event.failure.CopyFrom(failure)
    refused.event.changes.add(step_id="charge", state=saga_pb2.STEP_STATE_REFUSED)
    refused.event.changes.add(step_id="reserve", state=saga_pb2.STEP_STATE_COMPENSATING)
    shown.apply(refused)
    lines = drawn(shown)
    assert lines[0] == ["SAGA", "STATE", "DEFINITION", "STEP", "AGE", "NOTE"]
    row = ["a", "COMPENSATING", "order", "1.0.0", "reserve", "COMPENSATING", "1m", "5s", "BUSINESS", "NO_MONEY"]
    assert lines[1] == row
    assert " ".join(lines[2]) == "2 events; 1 sagas shown, 1 of them not ended"


def test_an_ended_saga_shows_how_long_it_took_and_no_step() -> None:
    shown = board(now_s=99)
    last = watched("a", 3, SUCCEEDED, at_s=1.25)
    last.event.changes.add(step_id="ship", state=saga_pb2.STEP_STATE_SUCCEEDED)
    shown.apply(last)
    assert drawn(shown)[1] == ["a", "SUCCEEDED", "order", "1.0.0", "1.25s"]


def test_a_clock_that_is_behind_makes_no_age_negative() -> None:
    shown = board(now_s=-5)
    shown.apply(watched("a", 1))
    assert drawn(shown)[1][-1] == "0s"


def test_the_newest_sagas_come_first() -> None:
    shown = board()
    for number, saga in enumerate("abc"):
        shown.apply(watched(saga, 1, created_s=number))
    shown.apply(watched("a", 2))
    assert names(shown) == ["c", "b", "a"]


def test_what_was_listed_gives_way_to_what_is_newer() -> None:
    shown = board()
    shown.apply(watched("a", 3, SUCCEEDED))
    shown.add(listed("a", 2))
    shown.add(listed("b", 1))
    shown.apply(watched("b", 1, COMPENSATING))
    states = {line[0]: line[1] for line in drawn(shown)[1:-1]}
    assert states == {"a": "SUCCEEDED", "b": "RUNNING"}


def test_a_listed_saga_shows_the_step_that_is_under_way() -> None:
    saga = listed("a", 2)
    saga.steps.add(step_id="reserve", state=saga_pb2.STEP_STATE_SUCCEEDED)
    saga.steps.add(step_id="charge", state=saga_pb2.STEP_STATE_BACKING_OFF)
    saga.steps.add(step_id="ship", state=saga_pb2.STEP_STATE_NOT_STARTED)
    shown = board()
    shown.add(saga)
    assert drawn(shown)[1][4:6] == ["charge", "BACKING_OFF"]


def test_where_there_are_too_many_the_ended_go_first_and_then_those_that_rest_longest() -> None:
    shown = board(most=3)
    for at_s, saga in enumerate("abc"):
        shown.apply(watched(saga, 1, at_s=at_s))
    shown.apply(watched("b", 2, SUCCEEDED, at_s=4))
    shown.apply(watched("d", 1, at_s=5))
    assert sorted(names(shown)) == ["a", "c", "d"]
    shown.apply(watched("a", 2, at_s=6))
    shown.apply(watched("e", 1, at_s=7))
    assert sorted(names(shown)) == ["a", "d", "e"]


def test_a_saga_that_leaves_the_selected_states_leaves_the_table() -> None:
    shown = board(states=[RUNNING])
    shown.apply(watched("a", 1))
    shown.apply(watched("b", 1))
    shown.apply(watched("a", 2, SUCCEEDED))
    assert names(shown) == ["b"]


def test_where_the_end_of_a_selection_cannot_be_seen_the_table_says_so() -> None:
    shown = board(categories=[common_pb2.FAILURE_CATEGORY_TIMEOUT])
    assert " ".join(drawn(shown)[-1]).endswith("each as the last event that is selected left it")


def test_a_heartbeat_changes_nothing() -> None:
    shown = board()
    shown.apply(WatchedEvent(resume_token="1"))
    assert names(shown) == []


def test_in_a_pipe_an_event_is_a_line_with_its_saga_in_front() -> None:
    line = line_of(watched("a", 1)).split("\t")
    assert line == ["a", "1", "2026-01-31T12:00:00.000Z", "RUNNING", "STARTED", "", ""]
