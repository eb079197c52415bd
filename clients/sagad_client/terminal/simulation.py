"""What the failure paths of a definition look like."""

from __future__ import annotations

from collections.abc import Sequence

from sagad.v1.definition_service_pb2 import (
    Assumption,
    DefinitionWarning,
    FaultKind,
    SimulatedCall,
    SimulatedFault,
    SimulatedPath,
)
from sagad.v1.saga_pb2 import Parking, ParkingReason
from sagad_client.durations import format_duration
from sagad_client.terminal import text
from sagad_client.terminal.output import Cell

PATH_HEADERS = ("WHAT GOES WRONG", "CALLS", "END", "TAKES", "WHAT HELPS")
PATH_OPTIONAL = ("TAKES", "WHAT HELPS")
LINT_HEADERS = ("DEFINITION", "WARNING", "WHERE", "WHAT AND WHAT TO DO")
_EXHAUSTED = {
    False: ParkingReason.PARKING_REASON_STEP_EXHAUSTED,
    True: ParkingReason.PARKING_REASON_COMPENSATION_EXHAUSTED,
}
"""Why a call, or the call of a compensation, is parked that was tried until its time was over."""
_MAX_CALLS = 20
_KEPT = 5

_VERBS = {
    FaultKind.FAULT_KIND_REFUSED: "is refused",
    FaultKind.FAULT_KIND_TIMED_OUT: "times out",
    FaultKind.FAULT_KIND_RETRIES_EXHAUSTED: "fails at every attempt",
    FaultKind.FAULT_KIND_PENDING_FOREVER: "stays pending",
    FaultKind.FAULT_KIND_EXPRESSION_FAILED: "has an expression that fails",
}
_EVENTS = {
    FaultKind.FAULT_KIND_DEADLINE_PASSED: "the deadline passes",
    FaultKind.FAULT_KIND_COMPENSATE_CALLED: "CompensateSaga is called",
}


def path_row(path: SimulatedPath) -> list[Cell]:
    """A path in a list."""
    end = text.saga_state(path.state)
    if path.parkings:
        end.append(": " + ", ".join(parking_text(parking) for parking in path.parkings))
    elif path.HasField("failure") and not path.faults:  # the example itself is what goes wrong
        end.append(f": {path.failure.step_id} {text.failure(path.failure)}")
    helps = list(dict.fromkeys(call for parking in path.parkings for call in parking.allowed_calls))
    return [
        ", then ".join(fault_text(fault) for fault in path.faults) or "nothing",
        calls_text(path),
        end,
        format_duration(path.duration),
        ", ".join(helps),
    ]


def fault_text(fault: SimulatedFault) -> str:
    """What goes wrong, in a few words."""
    if fault.step_id:
        return f"{call_name(fault.step_id, compensation=fault.compensation)} {fault_verb(fault.kind)}"
    run = "runs" if len(fault.under_way) == 1 else "run"
    during = f"while {' and '.join(fault.under_way)} {run}" if fault.under_way else "after the end"
    no_effect = f": no effect ({fault.held_off_by})" if fault.held_off_by else ""
    return f"{fault_verb(fault.kind)} {during}{no_effect}"


def fault_verb(kind: FaultKind.ValueType) -> str:
    """What a fault does to a call, or what happens to the saga as a whole."""
    return _VERBS.get(kind) or _EVENTS.get(kind) or text.fault_kind(kind)


def calls_text(path: SimulatedPath) -> str:
    """The calls in their order; the middle of many is left out."""
    exhausted = {(parking.step_id, parking.reason) for parking in path.parkings}
    shown = [_call_text(call, many=(call.step_id, _EXHAUSTED[call.compensation]) in exhausted) for call in path.calls]
    if len(shown) > _MAX_CALLS:
        shown[_KEPT:-_KEPT] = [f"... {len(shown) - 2 * _KEPT} more ..."]
    return ", ".join(shown)


def call_name(step_id: str, *, compensation: bool) -> str:
    """The action of a step, or its compensation."""
    return f"undo {step_id}" if compensation else step_id


def parking_text(parking: Parking) -> str:
    """What is parked, and why."""
    return f"{parking.step_id} {text.parking_reason(parking.reason)}"


def assumptions_text(assumptions: Sequence[Assumption]) -> str:
    """What was taken for granted, in one line."""
    missing = sorted({each for assumption in assumptions for each in assumption.missing})
    whens = [assumption.step_id for assumption in assumptions if assumption.field == "when"]
    inputs = [assumption.step_id for assumption in assumptions if assumption.field == "input"]
    what = [f"when of {', '.join(whens)}, taken for true"] if whens else []
    what += [f"input of {', '.join(inputs)}"] if inputs else []
    return f"not evaluated: {'; '.join(what)} (there is no example of {', '.join(missing)})"


def warning_text(warning: DefinitionWarning) -> str:
    """A danger in one line."""
    return text.printable(" ".join(part for part in (warning.code, warning.field) if part) + f": {warning.message}")


def _call_text(call: SimulatedCall, *, many: bool) -> str:
    name = call_name(call.step_id, compensation=call.compensation)
    times = " many times" if many else f" x{call.attempts}" if call.attempts > 1 else ""
    return f"{name}{times}{' (unknown outcome)' if call.outcome_unknown else ''}"
