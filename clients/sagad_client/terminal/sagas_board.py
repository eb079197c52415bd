"""The live table of many sagas that are watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sagad.v1 import saga_pb2
from sagad.v1.saga_pb2 import Saga, SagaFilter, Step, StepChange
from sagad.v1.saga_service_pb2 import WatchedEvent
from sagad_client.durations import format_duration, to_duration
from sagad_client.states import ENDED
from sagad_client.terminal import text
from sagad_client.terminal.views import event_note

_AT_REST = frozenset(
    {
        saga_pb2.STEP_STATE_NOT_STARTED,
        saga_pb2.STEP_STATE_SUCCEEDED,
        saga_pb2.STEP_STATE_SKIPPED,
        saga_pb2.STEP_STATE_COMPENSATED,
    }
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A saga as the last event left it; never changed, since another thread may be drawing it."""

    revision: int
    state: saga_pb2.SagaState.ValueType
    definition: str
    step: Text
    note: str
    create_time: datetime
    end_time: datetime | None
    moved: datetime


class SagasBoard:
    """The newest sagas that have moved, kept up to date from the events of a watch.

    Args:
        most: rows; beyond it the sagas that have ended go first, and of those that have not moved for longest.
        selection: what the watch selects, of which this is to look after `states` itself.
        now: the time in UTC, which ages are counted to.
    """

    def __init__(
        self, most: int, selection: SagaFilter, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._most = most
        self._states = frozenset(selection.states)
        fields = {field.name for field, _ in selection.ListFields()}
        self._is_stale = not fields.isdisjoint({"parking_reasons", "categories", "end_time_min", "end_time_max"})
        self._now = now
        self._rows: dict[str, _Row] = {}
        self._events = 0

    def add(self, saga: Saga) -> None:
        """Take in a saga as it was read; what is known of it may be newer."""
        step = next((step for step in saga.steps if step.state not in _AT_REST), None)
        self._put(
            saga.saga_id,
            _Row(
                revision=saga.revision,
                state=saga.state,
                definition=_definition(saga.definition_id, saga.version),
                step=_step(step) if step is not None else Text(),
                note=text.failure(saga.failure) if saga.HasField("failure") else "",
                create_time=saga.create_time.ToDatetime(UTC),
                end_time=saga.end_time.ToDatetime(UTC) if saga.HasField("end_time") else None,
                moved=saga.update_time.ToDatetime(UTC),
            ),
        )

    def apply(self, watched: WatchedEvent) -> None:
        """Take the next event in; one that has only a token changes nothing."""
        if not watched.HasField("event"):
            return
        event = watched.event
        self._events += 1
        known = self._rows.get(event.saga_id)
        self._put(
            event.saga_id,
            _Row(
                revision=event.revision,
                state=event.state,
                definition=_definition(event.definition_id, event.version),
                step=_step(event.changes[-1]) if event.changes else known.step if known else Text(),
                note=event_note(event) or (known.note if known else ""),
                create_time=watched.create_time.ToDatetime(UTC),
                end_time=event.time.ToDatetime(UTC) if event.state in ENDED else None,
                moved=event.time.ToDatetime(UTC),
            ),
        )

    def __rich__(self) -> RenderableType:
        rows = sorted(self._rows.items(), key=lambda item: (item[1].create_time, item[0]), reverse=True)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for header in ("SAGA", "STATE", "DEFINITION", "STEP", "AGE", "NOTE"):
            table.add_column(header, no_wrap=True, overflow="ellipsis")
        for saga_id, row in rows:
            step = Text() if row.state in ENDED else row.step
            cells = (Text(saga_id), text.saga_state(row.state), Text(row.definition), step)
            table.add_row(*cells, Text(_age(row, self._now())), Text(row.note))
        moving = sum(row.state not in ENDED for _, row in rows)
        foot = f"{self._events} events; {len(rows)} sagas shown, {moving} of them not ended"
        if self._is_stale:
            foot += "; each as the last event that is selected left it"
        return Group(table, Text(foot, "dim"))

    def _put(self, saga_id: str, row: _Row) -> None:
        known = self._rows.get(saga_id)
        if known is not None and known.revision >= row.revision:
            return
        if self._states and row.state not in self._states:
            self._rows.pop(saga_id, None)
            return
        self._rows[saga_id] = row
        if len(self._rows) > self._most:
            del self._rows[min(self._rows, key=lambda key: _worth(self._rows[key]))]


def _worth(row: _Row) -> tuple[bool, datetime]:
    return row.state not in ENDED, row.moved


def _definition(definition_id: str, version: str) -> str:
    return f"{definition_id} {version}".strip()


def _step(step: Step | StepChange) -> Text:
    return Text.assemble(f"{step.step_id} ", text.step_state(step.state))


def _age(row: _Row, now: datetime) -> str:
    """To the millisecond once it has ended, by the database's clock; until then by this one, to the second."""
    age = (row.end_time or now) - row.create_time
    unit = timedelta(seconds=1) if row.end_time is None else timedelta(milliseconds=1)
    return format_duration(to_duration(max(age, timedelta(0)) // unit * unit))
