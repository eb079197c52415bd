"""Starts a saga for each line of a file."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict, ParseError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sagad.v1 import saga_pb2
from sagad.v1.saga_pb2 import Saga
from sagad.v1.saga_service_pb2 import StartSagaRequest
from sagad_client.commands.exits import NOT_SUCCEEDED, OK, REFUSED, UNAVAILABLE, UsageError, code_of
from sagad_client.commands.inputs import make_payload
from sagad_client.commands.lines import text_of
from sagad_client.commands.session import Session
from sagad_client.errors import DeadlineExceeded, SagadError
from sagad_client.starts import Started
from sagad_client.terminal.output import Fields, Rows
from sagad_client.terminal.text import saga_state

_SHOWN = 20  # faults and refusals that are shown one by one
_MAX_REFUSED = 1000  # then something is wrong with all of them

_NO_ID = "saga_id must be a string: it is what makes this command safe to repeat"

_KEYS = {"saga_id": "saga_id", "sagaId": "saga_id", "input": "input", "labels": "labels"}


@dataclass(frozen=True, slots=True)
class Template:
    """What all sagas of a command have in common."""

    definition_id: str
    """Empty: each line is a whole request."""
    version: str
    labels: Mapping[str, str]
    metadata: Mapping[str, str]
    timeout: Duration | None
    wait: bool
    wait_timeout_s: float


Line: TypeAlias = tuple[int, StartSagaRequest]
"""Its number, and the saga to start."""


@dataclass(slots=True)
class Tally:
    """What has become of the lines."""

    states: Counter[saga_pb2.SagaState.ValueType] = field(default_factory=Counter)
    existed: int = 0
    """Sagas that were there already; not those of which that is not known."""
    refused: list[tuple[int, str, SagadError]] = field(default_factory=list)
    """Line, saga_id and why."""
    stopped_by: SagadError | None = None
    """The server is away, or nothing has ended for too long."""
    started_at: float = field(default_factory=time.monotonic)

    @property
    def sagas(self) -> int:
        """Sagas that are durable."""
        return self.states.total()

    def add(self, saga: Saga, created: bool | None) -> None:
        """Count a saga."""
        self.states[saga.state] += 1
        self.existed += created is False

    def add_error(self, number: int, saga_id: str, error: SagadError) -> None:
        """Count a line that was refused, or note that the server is away."""
        if code_of(error) == UNAVAILABLE:
            self.stopped_by = self.stopped_by or error
        else:
            self.refused.append((number, saga_id, error))

    @property
    def is_hopeless(self) -> bool:
        """There is no use in going on."""
        return self.stopped_by is not None or len(self.refused) >= _MAX_REFUSED


async def start_file(session: Session, template: Template, file: Path, concurrency: int) -> int:
    """Start each line, at most `concurrency` unanswered; return the exit code. Raises UsageError, SagadError."""
    tally, total = Tally(), 0
    try:
        async with text_of(file) as text:
            total = _check(text, file, template)
            text.seek(0)
            await _start_lines(session, template, _lines(text, template), total, concurrency, tally)
    except OSError as error:
        raise UsageError(f"--file: cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--file: {file} is not UTF-8") from error
    except asyncio.CancelledError:
        so_far = f"after {tally.sagas} of {total} sagas" if total else "before anything was started"
        session.output.note(f"interrupted {so_far}; the same command again goes on")
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

    numbers: dict[str, deque[int]] = {}

    def requests() -> Iterator[StartSagaRequest]:
        for number, request in lines:
            numbers.setdefault(request.saga_id, deque()).append(number)
            yield request

    async with session.client(patient=True) as client:
        with bar:
            async with aclosing(client.start_many(requests(), concurrency=concurrency)) as results:
                async for saga_id, result, created in _bounded(results, template, tally):
                    number = numbers[saga_id].popleft()
                    if not numbers[saga_id]:
                        del numbers[saga_id]
                    if isinstance(result, Saga):
                        tally.add(result, created)
                    else:
                        tally.add_error(number, saga_id, result)
                    done = tally.sagas + len(tally.refused)
                    bar.update(task, completed=done, rate=done / (time.monotonic() - tally.started_at))
                    if tally.is_hopeless:
                        return


async def _bounded(
    results: AsyncGenerator[Started, None], template: Template, tally: Tally
) -> AsyncGenerator[Started, None]:
    """The results until they end, the stream is given up, or with --wait none has come for as long as that is bound."""
    while True:
        try:
            async with asyncio.timeout(template.wait_timeout_s if template.wait else None):
                started = await anext(results)
        except StopAsyncIteration:
            return
        except TimeoutError:
            text = f"no saga has ended or parked for {template.wait_timeout_s:g} s; they go on"
            tally.stopped_by = DeadlineExceeded(text, code=grpc.StatusCode.DEADLINE_EXCEEDED)
            return
        except SagadError as error:
            tally.stopped_by = error
            return
        yield started


def _report(session: Session, template: Template, tally: Tally, total: int) -> int:
    took_s = max(time.monotonic() - tally.started_at, 1e-9)
    for number, saga_id, error in tally.refused[:_SHOWN]:
        session.output.note(f"line {number}, saga {saga_id}: {error}")
    if len(tally.refused) > _SHOWN:
        session.output.note(f"... and {len(tally.refused) - _SHOWN} more refusals")
    states = [(saga_state(state), str(count)) for state, count in sorted(tally.states.items())]
    data = {
        "sagas": tally.sagas,
        "existed": tally.existed,
        "states": {str(state): int(count) for state, count in states},
        "refused": [
            {"line": number, "sagaId": saga_id, "reason": error.reason, "message": error.message}
            for number, saga_id, error in tally.refused
        ],
    }
    counts = {"sagas": tally.sagas, "there already": tally.existed, "refused": len(tally.refused)}
    fields = [("lines", str(total)), *((name, str(count)) for name, count in counts.items())]
    rate = ("took", f"{took_s:.1f} s, {tally.sagas / took_s:.0f}/s")
    session.output.show(data, Fields([*fields, rate]), Rows(("STATE", "SAGAS"), states))
    if tally.is_hopeless:
        session.output.note(f"stopped after {tally.sagas} of {total} sagas; the same command again goes on")
    if tally.stopped_by is not None:
        raise tally.stopped_by
    if tally.refused:
        return REFUSED
    all_succeeded = tally.states[saga_pb2.SAGA_STATE_SUCCEEDED] == total
    return NOT_SUCCEEDED if template.wait and not all_succeeded else OK


def _check(text: TextIO, file: Path, template: Template) -> int:
    """Read the whole file once, so that nothing is started of one that is wrong; return the number of its sagas."""
    faults: list[str] = []
    total = 0
    for number, raw in _numbered(text):
        try:
            _parse(raw, template)
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


def _lines(text: TextIO, template: Template) -> Iterator[Line]:
    return ((number, _parse(raw, template)) for number, raw in _numbered(text))


def _numbered(text: TextIO) -> Iterator[tuple[int, str]]:
    return ((number, raw) for number, raw in enumerate(text, 1) if not raw.isspace())


def _parse(raw: str, template: Template) -> StartSagaRequest:
    try:
        value = json.loads(raw)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError('must be an object, such as {"saga_id": "order-1", "input": {}}')
    request = _filled(value, template) if template.definition_id else _whole(value)
    request.wait = request.wait or template.wait
    return request


def _filled(value: dict[str, Any], template: Template) -> StartSagaRequest:
    """What a line says, with what the command says about all."""
    unknown = sorted(value.keys() - _KEYS.keys())
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r}: there are saga_id, input and labels")
    fields: dict[str, Any] = {_KEYS[key]: item for key, item in value.items()}
    saga_id = fields.get("saga_id")
    if not isinstance(saga_id, str) or not saga_id:
        raise UsageError(_NO_ID)
    labels = fields.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(item, str) for item in labels.values()):
        raise UsageError("labels must be an object with strings")
    return StartSagaRequest(
        saga_id=saga_id,
        definition_id=template.definition_id,
        version=template.version,
        input=make_payload(fields.get("input"), "input"),
        labels={**template.labels, **labels},
        metadata=template.metadata,
        timeout=template.timeout,
    )


def _whole(value: dict[str, Any]) -> StartSagaRequest:
    """A line that is the ProtoJSON of a StartSagaRequest."""
    try:
        request = ParseDict(value, StartSagaRequest())
    except ParseError as error:
        raise UsageError(f"is no StartSagaRequest: {error}") from error
    if not request.saga_id:
        raise UsageError(_NO_ID)
    if not request.definition_id:
        raise UsageError("definition_id must be a string: the command names no DEFINITION")
    if request.namespace:
        raise UsageError("namespace is of the whole command: leave it out, and give --namespace")
    return request
