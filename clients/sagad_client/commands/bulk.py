"""Starts a saga for each line of a file."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from google.protobuf.duration_pb2 import Duration
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sagad.v1 import saga_pb2
from sagad.v1.common_pb2 import Payload
from sagad.v1.saga_pb2 import Saga
from sagad_client.client import Client
from sagad_client.commands.exits import NOT_SUCCEEDED, OK, REFUSED, UNAVAILABLE, UsageError, code_of
from sagad_client.commands.inputs import make_payload
from sagad_client.commands.session import Session
from sagad_client.errors import SagadError
from sagad_client.terminal.output import Fields, Rows
from sagad_client.terminal.text import saga_state

_SHOWN = 20  # faults and refusals that are shown one by one
_MAX_REFUSED = 1000  # then something is wrong with all of them

_KEYS = {"saga_id": "saga_id", "sagaId": "saga_id", "input": "input", "labels": "labels"}


@dataclass(frozen=True, slots=True)
class Template:
    """What all sagas of a command have in common."""

    definition_id: str
    version: str
    labels: Mapping[str, str]
    metadata: Mapping[str, str]
    timeout: Duration | None
    wait: bool
    wait_timeout_s: float


@dataclass(frozen=True, slots=True)
class Line:
    """One saga to start."""

    number: int
    saga_id: str
    input: Payload | None
    labels: Mapping[str, str]


@dataclass(slots=True)
class Tally:
    """What has become of the lines."""

    states: Counter[saga_pb2.SagaState.ValueType] = field(default_factory=Counter)
    refused: list[tuple[int, str, SagadError]] = field(default_factory=list)
    """Line, saga_id and why."""
    unavailable: SagadError | None = None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def sagas(self) -> int:
        """Sagas that are durable."""
        return self.states.total()

    def add(self, saga: Saga) -> None:
        """Count a saga."""
        self.states[saga.state] += 1

    def add_error(self, line: Line, error: SagadError) -> None:
        """Count a line that was refused, or note that the server is away."""
        if code_of(error) == UNAVAILABLE:
            self.unavailable = self.unavailable or error
        else:
            self.refused.append((line.number, line.saga_id, error))

    @property
    def is_hopeless(self) -> bool:
        """There is no use in going on."""
        return self.unavailable is not None or len(self.refused) >= _MAX_REFUSED


async def start_file(session: Session, template: Template, file: Path, concurrency: int) -> int:
    """Start a saga for each line, `concurrency` at a time; return the exit code. Raises UsageError, SagadError."""
    tally = Tally()
    try:
        with file.open(encoding="utf-8") as text:
            total = _check(text, file)
            text.seek(0)
            await _start_lines(session, template, _lines(text), total, concurrency, tally)
    except OSError as error:
        raise UsageError(f"--file: cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--file: {file} is not UTF-8") from error
    except asyncio.CancelledError:
        session.output.note(f"interrupted after {tally.sagas} of {total} sagas; the same command again goes on")
        raise
    return _report(session, template, tally, total)


async def _start_lines(
    session: Session, template: Template, lines: Iterator[Line], total: int, concurrency: int, tally: Tally
) -> None:
    bar = Progress(
        TextColumn("starting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f}/s"),
        TimeRemainingColumn(),
        console=session.output.notes,
        disable=not session.output.notes.is_terminal,
        refresh_per_second=5,
    )
    task = bar.add_task("", total=total, rate=0.0)

    async def work(client: Client) -> None:
        for line in lines:
            await _start_line(client, template, line, tally)
            done = tally.sagas + len(tally.refused)
            bar.update(task, completed=done, rate=done / (time.monotonic() - tally.started_at))
            if tally.is_hopeless:
                return

    async with session.client(patient=True) as client:
        with bar:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, total)):
                    group.create_task(work(client))


async def _start_line(client: Client, template: Template, line: Line, tally: Tally) -> None:
    try:
        saga = await client.start(
            template.definition_id,
            line.input,
            saga_id=line.saga_id,
            version=template.version,
            labels={**template.labels, **line.labels},
            metadata=template.metadata,
            timeout=template.timeout,
            wait=template.wait,
            wait_timeout_s=template.wait_timeout_s,
        )
    except SagadError as error:
        tally.add_error(line, error)
    else:
        tally.add(saga)


def _report(session: Session, template: Template, tally: Tally, total: int) -> int:
    took_s = max(time.monotonic() - tally.started_at, 1e-9)
    for number, saga_id, error in tally.refused[:_SHOWN]:
        session.output.note(f"line {number}, saga {saga_id}: {error}")
    if len(tally.refused) > _SHOWN:
        session.output.note(f"... and {len(tally.refused) - _SHOWN} more refusals")
    states = [(saga_state(state), str(count)) for state, count in sorted(tally.states.items())]
    data = {
        "sagas": tally.sagas,
        "states": {str(state): int(count) for state, count in states},
        "refused": [
            {"line": number, "sagaId": saga_id, "reason": error.reason, "message": error.message}
            for number, saga_id, error in tally.refused
        ],
    }
    fields = [("lines", str(total)), ("sagas", str(tally.sagas)), ("refused", str(len(tally.refused)))]
    rate = ("took", f"{took_s:.1f} s, {tally.sagas / took_s:.0f}/s")
    session.output.show(data, Fields([*fields, rate]), Rows(("STATE", "SAGAS"), states))
    if tally.is_hopeless:
        session.output.note(f"stopped after {tally.sagas} of {total} sagas; the same command again goes on")
    if tally.unavailable is not None:
        raise tally.unavailable
    if tally.refused:
        return REFUSED
    all_succeeded = tally.states[saga_pb2.SAGA_STATE_SUCCEEDED] == total
    return NOT_SUCCEEDED if template.wait and not all_succeeded else OK


def _check(text: TextIO, file: Path) -> int:
    """Read the whole file once, so that nothing is started of one that is wrong; return the number of its sagas."""
    faults: list[str] = []
    total = 0
    for number, raw in _numbered(text):
        try:
            _parse(number, raw)
            total += 1
        except UsageError as error:
            faults.append(f"{file}:{number}: {error}")
            if len(faults) == _SHOWN:
                break
    if faults:
        raise UsageError("\n".join(faults))
    if not total:
        raise UsageError(f"{file} has no lines")
    return total


def _lines(text: TextIO) -> Iterator[Line]:
    return (_parse(number, raw) for number, raw in _numbered(text))


def _numbered(text: TextIO) -> Iterator[tuple[int, str]]:
    return ((number, raw) for number, raw in enumerate(text, 1) if not raw.isspace())


def _parse(number: int, raw: str) -> Line:
    try:
        value = json.loads(raw)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError('must be an object, such as {"saga_id": "order-1", "input": {}}')
    unknown = sorted(value.keys() - _KEYS.keys())
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r}: there are saga_id, input and labels")
    fields: dict[str, Any] = {_KEYS[key]: item for key, item in value.items()}
    saga_id = fields.get("saga_id")
    if not isinstance(saga_id, str) or not saga_id:
        raise UsageError("saga_id must be a string: it is what makes this command safe to repeat")
    labels = fields.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(item, str) for item in labels.values()):
        raise UsageError("labels must be an object with strings")
    return Line(number, saga_id, make_payload(fields.get("input"), "input"), labels)
