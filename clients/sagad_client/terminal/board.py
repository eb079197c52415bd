"""The live table of a saga that is watched."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sagad.v1 import saga_pb2
from sagad.v1.saga_pb2 import Saga, SagaEvent, StepChange
from sagad.v1.saga_service_pb2 import WatchSagaResponse
from sagad_client.durations import format_duration
from sagad_client.terminal import text
from sagad_client.terminal.views import attempts, event_note


class Board:
    """A saga and its steps, kept up to date from the messages of a watch."""

    def __init__(self, saga_id: str) -> None:
        self._saga_id = saga_id
        self._definition = ""
        self._revision = 0
        self._state = saga_pb2.SAGA_STATE_UNSPECIFIED
        self._note = ""
        self._steps: dict[str, tuple[Text, str, str]] = {}

    def apply(self, message: WatchSagaResponse) -> None:
        """Take the next message in."""
        self._revision = message.revision
        if message.WhichOneof("update") == "snapshot":
            self._apply_snapshot(message.snapshot)
        else:
            self._apply_event(message.event)

    def __rich__(self) -> RenderableType:
        head = Text.assemble(
            (self._saga_id, "bold"),
            f"  {self._definition}  ",
            text.saga_state(self._state) if self._state else "",
            f"  revision {self._revision}",
        )
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for header in ("STEP", "STATE", "ATTEMPT", "NOTE"):
            table.add_column(header)
        for step_id, (state, attempt, note) in self._steps.items():
            table.add_row(Text(step_id), state, attempt, Text(note))
        return Group(head, table, Text(self._note, "dim"))

    def _apply_snapshot(self, saga: Saga) -> None:
        self._definition = f"{saga.definition_id} {saga.version}".strip()
        self._state = saga.state
        self._note = text.failure(saga.failure) if saga.HasField("failure") else ""
        for step in saga.steps:
            note = text.failure(step.failure) if step.HasField("failure") else ""
            self._steps[step.step_id] = (text.step_state(step.state), attempts(step), note)

    def _apply_event(self, event: SagaEvent) -> None:
        self._definition = self._definition or f"{event.definition_id} {event.version}".strip()
        self._state = event.state
        self._note = event_note(event) or self._note
        for change in event.changes:
            self._steps[change.step_id] = (text.step_state(change.state), attempts(change), _change_note(change))


def _change_note(change: StepChange) -> str:
    notes = []
    if change.may_have_happened:
        notes.append("may have happened")
    if change.HasField("failure"):
        notes.append(text.failure(change.failure))
    if change.HasField("delay"):
        notes.append(f"again in {format_duration(change.delay)}")
    if change.parking_reason:
        notes.append(text.parking_reason(change.parking_reason))
    return "; ".join(notes)
