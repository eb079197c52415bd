"""The chart of a saga's steps over time."""

from __future__ import annotations

import io
from datetime import datetime, timedelta

from rich.console import Console

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1.saga_pb2 import SagaEvent, StepChange
from sagad_client.terminal.timeline import Span, chart, spans_of, timeline_document

START = datetime(2026, 1, 31, 12)
BUSY = common_pb2.Failure(category=common_pb2.FAILURE_CATEGORY_INFRASTRUCTURE, reason="BUSY")


def event(
    second: int, *changes: StepChange, state: saga_pb2.SagaState.ValueType = saga_pb2.SAGA_STATE_RUNNING
) -> SagaEvent:
    event = SagaEvent(changes=changes, state=state)
    event.time.FromDatetime(START + timedelta(seconds=second))
    return event


def change(step_id: str, state: str, **fields: object) -> StepChange:
    return StepChange(step_id=step_id, state=saga_pb2.StepState.Value(f"STEP_STATE_{state}"), **fields)


EVENTS = [
    event(0, change("a", "RUNNING", attempt=1)),
    event(2, change("a", "BACKING_OFF", attempt=1, failure=BUSY)),
    event(6, change("a", "RUNNING", attempt=2)),
    event(8, change("a", "SUCCEEDED", attempt=2), change("b", "RUNNING", attempt=1)),
    event(10, change("b", "REFUSED", attempt=1), change("a", "COMPENSATING", attempt=2, compensation_attempt=1)),
    event(20, change("a", "COMPENSATED"), state=saga_pb2.SAGA_STATE_COMPENSATED),
]


def drawn(spans: list[Span], second: int, *, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(file=stream, width=100, color_system=None)
    console.print(chart(spans, START + timedelta(seconds=second), console))
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_each_attempt_back_off_and_compensation_is_a_span_with_its_duration() -> None:
    spans = timeline_document("s", spans_of(EVENTS))["spans"]
    assert isinstance(spans, list)
    told = [(one["stepId"], one["state"], one["attempt"], one["duration"], one["then"]) for one in spans]
    assert told == [
        ("a", "RUNNING", 1, "2s", "BACKING_OFF"),
        ("a", "BACKING_OFF", 1, "4s", "RUNNING"),
        ("a", "RUNNING", 2, "2s", "SUCCEEDED"),
        ("b", "RUNNING", 1, "2s", "REFUSED"),
        ("a", "COMPENSATING", 1, "10s", "COMPENSATED"),
    ]
    assert "BUSY" in spans[0]["failure"]


def test_what_lasts_has_no_end_and_is_drawn_up_to_now() -> None:
    spans = spans_of(EVENTS[:2])
    assert spans[-1].end is None
    text = drawn(spans, 4)
    (line,) = [line for line in text.splitlines() if "backs off still" in line]
    assert abs(line.count("█") - line.count("░")) <= 1
    assert line.count("░") > 10
    assert "4s" in text


def test_what_is_parked_when_a_saga_is_abandoned_ends_with_it() -> None:
    spans = spans_of([event(0, change("a", "PARKED")), event(3, state=saga_pb2.SAGA_STATE_ABANDONED)])
    assert [span.took for span in spans] == [timedelta(seconds=3)]


def test_a_compensation_has_a_line_of_its_own_where_it_happened() -> None:
    lines = drawn(spans_of(EVENTS), 99).splitlines()
    action, undo = (next(line for line in lines if line.startswith(f"{name} ")) for name in ("a", "undo a"))
    assert action.rindex("█") < undo.index("█")
    assert "2 calls, SUCCEEDED" in action
    assert all(len(line.rstrip()) <= 100 for line in lines)


def test_a_terminal_without_unicode_gets_plain_glyphs() -> None:
    text = drawn(spans_of(EVENTS), 99, encoding="ascii")
    assert "#" in text
    assert ". backs off" in text
