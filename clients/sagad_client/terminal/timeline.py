"""A saga's steps over time: the spans in which each was called, waited or was parked, and their chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sagad.v1 import saga_pb2
from sagad.v1.saga_pb2 import SagaEvent, StepChange
from sagad_client.durations import format_duration, to_duration
from sagad_client.terminal import text
from sagad_client.terminal.output import Rows, When

_MIN_BAR = 10  # cells
_ENDED = {saga_pb2.SAGA_STATE_SUCCEEDED, saga_pb2.SAGA_STATE_COMPENSATED, saga_pb2.SAGA_STATE_ABANDONED}
# What takes time: a name, whether it belongs to the compensation, a glyph, one for plain terminals, a style.
_KINDS = {
    saga_pb2.STEP_STATE_RUNNING: ("called", False, "█", "#", "cyan"),
    saga_pb2.STEP_STATE_BACKING_OFF: ("backs off", False, "░", ".", "blue"),
    saga_pb2.STEP_STATE_AWAITING_COMPLETION: ("pending", False, "▒", "~", "blue"),
    saga_pb2.STEP_STATE_PARKED: ("parked", False, "▓", "!", "magenta"),
    saga_pb2.STEP_STATE_COMPENSATING: ("called", True, "█", "#", "yellow"),
    saga_pb2.STEP_STATE_COMPENSATION_BACKING_OFF: ("backs off", True, "░", ".", "blue"),
    saga_pb2.STEP_STATE_COMPENSATION_AWAITING_COMPLETION: ("pending", True, "▒", "~", "blue"),
    saga_pb2.STEP_STATE_COMPENSATION_PARKED: ("parked", True, "▓", "!", "magenta"),
}


@dataclass(slots=True)
class Span:
    """A time in which a step stood in one state that takes time."""

    step_id: str
    state: saga_pb2.StepState.ValueType
    attempt: int
    """Of the action, or of the compensation where the state is one of it."""
    start: Timestamp
    end: Timestamp | None = None
    """None while it lasts."""
    left_as: saga_pb2.StepState.ValueType = saga_pb2.STEP_STATE_UNSPECIFIED
    """The state of the step that followed; unspecified where none did."""
    failure: str = ""

    @property
    def compensates(self) -> bool:
        """It belongs to the compensation of the step."""
        return _KINDS[self.state][1]

    @property
    def took(self) -> timedelta | None:
        """How long it lasted; None while it lasts."""
        return None if self.end is None else self.end.ToDatetime() - self.start.ToDatetime()


def spans_of(events: Iterable[SagaEvent]) -> list[Span]:
    """The spans of a saga's transitions, given oldest first, by the time of their start."""
    spans: list[Span] = []
    open_: dict[str, Span] = {}
    for event in events:
        for change in event.changes:
            if (span := open_.pop(change.step_id, None)) is not None:
                span.end, span.left_as = event.time, change.state
                span.failure = text.failure(change.failure) if change.HasField("failure") else ""
            if change.state in _KINDS:
                span = Span(change.step_id, change.state, _attempt(change), event.time)
                open_[change.step_id] = span
                spans.append(span)
        if event.state in _ENDED:  # abandoned: nothing of it lasts
            for span in open_.values():
                span.end = event.time
            open_.clear()
    return spans


def timeline_document(saga_id: str, spans: Sequence[Span]) -> dict[str, object]:
    """The spans as plain values; what still lasts has no endTime."""
    return {"sagaId": saga_id, "spans": [_document(span) for span in spans]}


def timeline_rows(spans: Sequence[Span]) -> Rows:
    """The spans for a pipe, one a line."""
    rows = [
        (
            span.step_id,
            text.step_state(span.state),
            str(span.attempt),
            When(span.start),
            When(span.end) if span.end is not None else "",
            _took(span),
            text.step_state(span.left_as) if span.left_as else "",
            span.failure,
        )
        for span in spans
    ]
    return Rows(("STEP", "STATE", "ATTEMPT", "START", "END", "TOOK", "THEN", "FAILURE"), rows)


def chart(spans: Sequence[Span], now: datetime, console: Console) -> Table:
    """A Gantt chart, as wide as the terminal: a line for each step's action, and one for its compensation.

    Args:
        spans: at least one.
        now: in UTC without a zone, up to which is drawn what still lasts.
        console: where it is to be printed.
    """
    lanes: dict[tuple[str, bool], list[Span]] = {}
    for span in spans:
        lanes.setdefault((span.step_id, span.compensates), []).append(span)
    start = min(span.start.ToDatetime() for span in spans)
    end = max(span.end.ToDatetime() if span.end is not None else now for span in spans)
    total = max(end - start, timedelta(microseconds=1))
    labels = [("undo " if undo else "") + step_id for step_id, undo in lanes]
    notes = [_note(lane) for lane in lanes.values()]
    width = console.width - max(map(len, [*labels, "STEP"])) - max(map(len, notes)) - 6  # three gaps
    width = max(width, _MIN_BAR)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("STEP", no_wrap=True, overflow="ellipsis")
    table.add_column(_scale(total, width), no_wrap=True, min_width=width)
    table.add_column("TOOK", overflow="fold")
    for label, note, lane in zip(labels, notes, lanes.values(), strict=True):
        table.add_row(Text(label), _bar(lane, start, total, now, width, console), Text(note))
    table.add_row("", _legend(console), "")
    return table


def _bar(lane: list[Span], start: datetime, total: timedelta, now: datetime, width: int, console: Console) -> Text:
    cells = [(" ", "")] * width
    for span in lane:
        _, _, glyph, plain, style = _KINDS[span.state]
        end = span.end.ToDatetime() if span.end is not None else max(now, span.start.ToDatetime())
        first = min(math.floor((span.start.ToDatetime() - start) / total * width), width - 1)
        last = min(max(math.ceil((end - start) / total * width), first + 1), width)
        cells[first:last] = [(_glyph(console, glyph, plain), style)] * (last - first)
    return Text.assemble(*cells)


def _scale(total: timedelta, width: int) -> Text:
    length = format_duration(to_duration(total))
    return Text("0" + length.rjust(width - 1))


def _legend(console: Console) -> Text:
    kinds = [kind for kind in _KINDS.values() if not kind[1]]
    return Text("  ".join(f"{_glyph(console, glyph, plain)} {name}" for name, _, glyph, plain, _ in kinds), "dim")


def _glyph(console: Console, glyph: str, plain: str) -> str:
    return plain if console.options.ascii_only else glyph


def _note(lane: list[Span]) -> str:
    """How long the lane's spans took together, how many calls there were, and where the last one led."""
    last = lane[-1]
    took = sum((span.took for span in lane if span.took is not None), timedelta())
    words = [format_duration(to_duration(took))]
    calls = max(span.attempt for span in lane)
    if calls > 1:
        words.append(f"{calls} calls")
    name = _KINDS[last.state][0]
    if last.left_as:
        words.append(text.step_state(last.left_as).plain)
    else:
        words.append(name if last.end is not None else f"{name} still")
    return ", ".join(words)


def _took(span: Span) -> str:
    return format_duration(to_duration(span.took)) if span.took is not None else ""


def _document(span: Span) -> dict[str, object]:
    document: dict[str, object] = {
        "stepId": span.step_id,
        "state": text.step_state(span.state).plain,
        "attempt": span.attempt,
        "startTime": span.start.ToJsonString(),
    }
    if span.end is not None and span.took is not None:
        document["endTime"] = span.end.ToJsonString()
        document["duration"] = to_duration(span.took).ToJsonString()
    if span.left_as:
        document["then"] = text.step_state(span.left_as).plain
    if span.failure:
        document["failure"] = span.failure
    return document


def _attempt(change: StepChange) -> int:
    return change.compensation_attempt if _KINDS[change.state][1] else change.attempt
