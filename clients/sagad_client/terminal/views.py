"""What sagas, events and definitions look like."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from sagad.v1 import definition_pb2
from sagad.v1.definition_pb2 import Definition
from sagad.v1.saga_pb2 import Parking, Saga, SagaEvent, SagaLock, SagaStats, Step, StepChange
from sagad_client.durations import format_duration
from sagad_client.terminal import text
from sagad_client.terminal.output import Cell, Fields, Rows, View, When

SAGA_HEADERS = ("SAGA", "STATE", "DEFINITION", "VERSION", "REV", "CREATED", "ENDED")
SAGA_OPTIONAL = ("VERSION", "REV", "ENDED")
PARKED_HEADERS = ("SAGA", "DEFINITION", "STEP", "REASON", "SINCE", "CAN BE", "COMMAND")
PARKED_OPTIONAL = ("DEFINITION", "CAN BE")
_VERBS = {
    "RetrySaga": "retried",
    "SkipStep": "skipped",
    "CompleteStep": "completed",
    "CompensateSaga": "compensated",
    "AbandonSaga": "abandoned",
}
EVENT_HEADERS = ("REV", "TIME", "STATE", "CAUSE", "STEPS", "NOTE")
DEFINITION_HEADERS = ("DEFINITION", "VERSION", "ACTIVE", "STEPS", "NAME", "CREATED")


def saga_row(saga: Saga) -> list[Cell]:
    """A saga in a list."""
    return [
        saga.saga_id,
        text.saga_state(saga.state),
        saga.definition_id or "(purged)",
        saga.version,
        str(saga.revision),
        When(saga.create_time),
        When(saga.end_time) if saga.HasField("end_time") else "",
    ]


def saga_views(saga: Saga) -> list[View]:
    """A saga with its steps, and with what needs an operator."""
    views: list[View] = [Fields(_saga_fields(saga))]
    if saga.steps:
        views.append(Rows(("STEP", "STATE", "ATTEMPT", "NOTE"), [step_row(step) for step in saga.steps]))
    if saga.locks:
        views.append(Rows(("LOCK", "STATE", "TOKEN", "NOTE"), [lock_row(lock) for lock in saga.locks]))
    if saga.parkings:
        headers = ("PARKED", "REASON", "SINCE", "WHAT HELPS")
        views.append(Rows(headers, [_parking_row(saga, index) for index in range(len(saga.parkings))]))
    return views


def step_row(step: Step) -> list[Cell]:
    """A step in the table of its saga."""
    notes = []
    if step.may_have_happened:
        notes.append("may have happened")
    if step.HasField("next_attempt_time"):
        notes.append(f"next call {text.instant(step.next_attempt_time)}")
    if step.HasField("failure"):
        notes.append(text.failure(step.failure))
    if step.HasField("output"):
        notes.append(f"output {text.payload(step.output)}")
    return [step.step_id, text.step_state(step.state), attempts(step), "; ".join(notes)]


def lock_row(lock: SagaLock) -> list[Cell]:
    """A lock in the table of its saga."""
    notes = []
    if lock.holder_saga_id:
        notes.append(f"held by {lock.holder_saga_id}")
    if lock.waiting_count:
        more = "" if lock.waiting_count == len(lock.waiting_saga_ids) else ", ..."
        notes.append(f"{lock.waiting_count} waiting: {', '.join(lock.waiting_saga_ids)}{more}")
    token = str(lock.fencing_token) if lock.fencing_token else ""
    return [text.printable(lock.name), text.lock_state(lock.state), token, "; ".join(notes)]


def attempts(step: Step | StepChange) -> str:
    """How often a step was called: the action, and after a slash its compensation."""
    return f"{step.attempt}/{step.compensation_attempt}" if step.compensation_attempt else str(step.attempt)


def event_row(event: SagaEvent) -> list[Cell]:
    """A transition in a list."""
    return [
        str(event.revision),
        When(event.time),
        text.saga_state(event.state),
        text.event_cause(event.cause),
        "; ".join(change_text(change) for change in event.changes),
        event_note(event),
    ]


def change_text(change: StepChange) -> str:
    """What a transition did to a step, in a few words."""
    words = [f"{change.step_id} {text.step_state(change.state)}"]
    if change.attempt > 1 or change.compensation_attempt > 1:
        words.append(f"attempt {change.compensation_attempt or change.attempt}")
    if change.HasField("failure"):
        words.append(f"({text.failure(change.failure)})")
    if change.HasField("delay"):
        words.append(f"again in {format_duration(change.delay)}")
    if change.parking_reason:
        words.append(text.parking_reason(change.parking_reason))
    return " ".join(words)


def event_note(event: SagaEvent) -> str:
    """Who asked for a transition and why, and what failed."""
    notes = []
    if event.granted_lock:
        notes.append(f"has lock {event.granted_lock}")
    if event.waits_for_lock:
        notes.append(f"waits for lock {event.waits_for_lock}")
    if event.HasField("failure"):
        notes.append(text.failure(event.failure))
    if event.actor:
        notes.append(f"by {event.actor}")
    if event.reason:
        notes.append(f"because {event.reason}")
    if event.incident_id:
        notes.append(f"incident {event.incident_id}")
    return text.printable("; ".join(notes))


def definition_row(definition: Definition) -> list[Cell]:
    """A definition in a list."""
    return [
        definition.definition_id,
        definition.version,
        "yes" if definition.active else "no",
        str(len(definition.steps)),
        text.printable(definition.name),
        When(definition.create_time),
    ]


def definition_views(definition: Definition) -> list[View]:
    """A definition with its steps."""
    fields: list[tuple[str, Cell]] = [
        ("definition", definition.definition_id),
        ("version", definition.version),
        ("name", text.printable(definition.name)),
        ("description", text.printable(definition.description)),
        ("active", "yes" if definition.active else "no"),
    ]
    if definition.HasField("timeout"):
        fields.append(("timeout", format_duration(definition.timeout)))
    if definition.locks:
        fields.append(("locks", text.printable(", ".join(definition.locks))))
    kinds = definition_pb2.StepKind
    rows = [
        (
            step.step_id,
            kinds.Name(step.kind or definition_pb2.STEP_KIND_COMPENSATABLE).removeprefix("STEP_KIND_"),
            f"{step.participant}.{step.action}",
            step.compensation or ("(read only)" if step.read_only else ""),
            ", ".join(step.depends_on),
        )
        for step in definition.steps
    ]
    return [Fields(fields), Rows(("STEP", "KIND", "ACTION", "COMPENSATION", "AFTER"), rows)]


def stats_views(stats: SagaStats) -> list[View]:
    """Counts of sagas by state, and how long they took."""
    fields: list[tuple[str, Cell]] = [("total", str(stats.total))]
    if stats.HasField("success_rate"):
        fields.append(("success rate", f"{stats.success_rate:.1%}"))
    if stats.HasField("duration_p50"):
        quantiles = (("p50", stats.duration_p50), ("p90", stats.duration_p90), ("p99", stats.duration_p99))
        fields += [(f"duration {name}", format_duration(duration)) for name, duration in quantiles]
    if stats.HasField("oldest_running_time"):
        fields.append(("oldest running since", text.instant(stats.oldest_running_time)))
    if stats.HasField("ended_since"):
        fields.append(("ended ones created since", text.instant(stats.ended_since)))
    rows = [(text.saga_state(entry.state), str(entry.count)) for entry in stats.by_state]
    return [Fields(fields), Rows(("STATE", "SAGAS"), rows)]


def _saga_fields(saga: Saga) -> list[tuple[str, Cell]]:
    fields: list[tuple[str, Cell]] = [
        ("saga", saga.saga_id),
        ("state", text.saga_state(saga.state)),
        ("definition", f"{saga.definition_id} {saga.version}" if saga.definition_id else "(purged)"),
        ("revision", str(saga.revision)),
        ("created", text.instant(saga.create_time)),
    ]
    if saga.HasField("end_time"):
        fields.append(("ended", text.instant(saga.end_time)))
    if saga.HasField("deadline_time"):
        fields.append(("deadline", text.instant(saga.deadline_time)))
    for name, pairs in (("labels", saga.labels), ("metadata", saga.metadata)):
        if pairs:
            fields.append((name, _pairs(pairs)))
    if saga.HasField("failure"):
        where = f" (step {saga.failure.step_id})" if saga.failure.step_id else ""
        fields.append(("failure", Text(text.failure(saga.failure) + where, "red")))
    if saga.HasField("input"):
        fields.append(("input", text.payload(saga.input)))
    return fields


def _parking_row(saga: Saga, index: int) -> list[Cell]:
    parking = saga.parkings[index]
    incident = f" (incident {parking.incident_id})" if parking.incident_id else ""
    return [
        parking.step_id or "the saga",
        text.parking_reason(parking.reason) + incident,
        When(parking.park_time),
        "; ".join(_command(call, saga.saga_id, parking.step_id) for call in parking.allowed_calls),
    ]


def parked_rows(saga: Saga) -> list[list[Cell]]:
    """What is parked in a saga: for each what can be done, and the first of it as a command that lacks only the why."""
    return [
        [
            saga.saga_id,
            f"{saga.definition_id} {saga.version}",
            parking.step_id or "the saga",
            text.parking_reason(parking.reason),
            When(parking.park_time),
            ", ".join(_VERBS.get(call, call) for call in parking.allowed_calls),
            _paste(saga, parking),
        ]
        for parking in saga.parkings
    ]


def _paste(saga: Saga, parking: Parking) -> str:
    """A retry, which every parking allows so far: else whatever comes first."""
    call = next(iter(parking.allowed_calls), "")
    if call != "RetrySaga":
        return _command(call, saga.saga_id, parking.step_id)
    step = f" --step {parking.step_id}" if parking.step_id else ""
    return f'sagactl retry {saga.saga_id}{step} --revision {saga.revision} --reason "..."'


def _command(call: str, saga_id: str, step_id: str) -> str:
    """The command of sagactl for an RPC that helps."""
    commands = {
        "RetrySaga": f"sagactl retry {saga_id}",
        "SkipStep": f"sagactl skip {saga_id} {step_id}",
        "AbandonSaga": f"sagactl abandon {saga_id}",
        "CompensateSaga": f"sagactl compensate {saga_id}",
    }
    return commands.get(call, call)


def _pairs(pairs: Mapping[str, str]) -> str:
    return text.printable(", ".join(f"{key}={value}" for key, value in sorted(pairs.items())))
