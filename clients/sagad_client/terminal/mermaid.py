"""The failure paths of a definition as a flow chart in Mermaid (mermaid.js.org).

A box is a call or an end, an arrow what follows; one without words follows a success. Paths that begin alike share
their beginning, and those that go on alike share the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sagad.v1.definition_service_pb2 import FaultKind, SimulatedFault, SimulatedPath
from sagad.v1.saga_pb2 import SagaState
from sagad_client.terminal.simulation import call_name, fault_text, fault_verb, parking_text
from sagad_client.terminal.text import saga_state

_START = "([start])"
_CALL = '["{}"]'
_UNDO = '["undo '
_END = '(["{}"])'


@dataclass(slots=True)
class _Box:
    """A box as Mermaid writes it, and the boxes behind it by the words on the arrow and what they look like."""

    shape: str
    next: dict[tuple[str, str], _Box] = field(default_factory=dict)


def flow_chart(paths: Iterable[SimulatedPath]) -> str:
    """The source of the chart. What the point of no return holds off is left out, as it changes nothing."""
    start = _Box(_START)
    for path in paths:
        if not any(fault.held_off_by for fault in path.faults):
            _add(start, path)
    lines = ["flowchart TD"]
    _draw(_shared(start, {}), {}, lines)
    return "\n".join(lines)


def _add(start: _Box, path: SimulatedPath) -> None:
    box = start
    for words, shape in _arrows(path):
        box = box.next.setdefault((words, shape), _Box(shape))


def _arrows(path: SimulatedPath) -> list[tuple[str, str]]:
    """What follows the start, one after the other: the words on the arrow, and the box."""
    words = [fault_verb(call.fault) if call.fault else "" for call in path.calls]
    shapes = [_CALL.format(call_name(call.step_id, compensation=call.compensation)) for call in path.calls]
    shapes.append(_END.format("<br>".join((_state(path.state), *map(parking_text, path.parkings)))))
    words.insert(0, "")
    for fault in path.faults:
        if not fault.step_id or fault.kind == FaultKind.FAULT_KIND_EXPRESSION_FAILED:
            _add_event(path, fault, words, shapes)
    return list(zip(words, shapes, strict=True))


def _add_event(path: SimulatedPath, fault: SimulatedFault, words: list[str], shapes: list[str]) -> None:
    """What happens between two calls: behind those that are under way, or behind all actions."""
    actions = [number for number, call in enumerate(path.calls) if not call.compensation]
    if fault.under_way:
        actions = [number for number in actions if path.calls[number].step_id in fault.under_way]
    place = actions[-1] + 1 if actions else 0
    if fault.step_id:
        words[place] = fault_text(fault)
    elif fault.under_way:
        words[place] = fault_verb(fault.kind)
    else:  # after the end
        words.insert(place + 1, fault_verb(fault.kind))
        shapes.insert(place, _END.format(_state(SagaState.SAGA_STATE_SUCCEEDED)))


def _state(state: SagaState.ValueType) -> str:
    return saga_state(state).plain


def _shared(box: _Box, known: dict[object, _Box]) -> _Box:
    """The box with all that follows, where what follows alike is one and the same."""
    for key, behind in box.next.items():
        box.next[key] = _shared(behind, known)
    # The faults of a compensation are told on one of the paths that come to it, and are the same on all.
    told = {key for key in box.next if not key[0]} if box.shape.startswith(_UNDO) else box.next.keys()
    one = known.setdefault((box.shape, tuple(sorted((key, id(box.next[key])) for key in told))), box)
    one.next.update(box.next)
    return one


def _draw(box: _Box, numbers: dict[int, str], lines: list[str]) -> str:
    """Adds the lines of a box and of all that follows, and returns the box's name in them."""
    name = numbers[id(box)] = f"n{len(numbers)}"
    lines.append(f"  {name}{box.shape}")
    words: dict[int, list[str]] = {}
    behind = {id(each): each for each in box.next.values()}
    for (text, _), each in box.next.items():
        words.setdefault(id(each), []).append(text)
    for key, texts in words.items():
        to = numbers.get(key) or _draw(behind[key], numbers, lines)
        label = "<br>".join(text or "succeeds" for text in texts) if any(texts) else ""
        lines.append(f'  {name} -->|"{label}"| {to}' if label else f"  {name} --> {to}")
    return name
