"""Explorations in short words, for tests."""

from typing import Any

from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.definition import Definition, compile_definition
from sagad_server.domain.example import Example
from sagad_server.domain.exploration import Exploration
from sagad_server.domain.faults import Fault
from sagad_server.domain.path import Path, PathCall
from sagad_server.domain.states import Direction
from support.play import payload


class Explored:
    """All paths of a definition, each by what goes wrong: `charge TIMED_OUT`, then `-reserve REFUSED` where that is a
    compensation, `COMPENSATE_CALLED at charge`, `DEADLINE_PASSED at end`; and `calm` where nothing does."""

    def __init__(
        self,
        message: DefinitionMessage,
        input: Any = None,  # noqa: A002
        outputs: dict[str, Any] | None = None,
        **bounds: int,
    ) -> None:
        self.definition = compile_definition(message)
        example = Example(
            None if input is None else payload(input), {key: payload(value) for key, value in (outputs or {}).items()}
        )
        self.exploration = Exploration(self.definition, example, **bounds)
        self.paths = [path for path in self.exploration.paths() if path is not None]
        self.by_fault = {fault_text(self.definition, path): path for path in self.paths}

    def __getitem__(self, faults: str) -> Path:
        return self.by_fault[faults]

    def calls(self, faults: str) -> str:
        """Such as `reserve charge*4 -charge? -reserve`: `*` attempts, `?` of a compensation with unknown outcome."""
        return " ".join(call_text(self.definition, call) for call in self[faults].calls)

    def parked(self, faults: str) -> dict[str, str]:
        """Reasons by step_id."""
        steps = self.definition.steps
        return {steps[each.step].step_id: each.reason.name for each in self[faults].parkings if each.step is not None}


def fault_text(definition: Definition, path: Path) -> str:
    return ", ".join(_fault_text(definition, fault) for fault in path.faults) or "calm"


def _fault_text(definition: Definition, fault: Fault) -> str:
    if fault.step is None:
        where = "+".join(definition.steps[index].step_id for index in fault.under_way)
        return f"{fault.kind.name} at {where or 'end'}"
    sign = "-" if fault.direction is Direction.COMPENSATION else ""
    return f"{sign}{definition.steps[fault.step].step_id} {fault.kind.name}"


def call_text(definition: Definition, call: PathCall) -> str:
    sign = "-" if call.direction is Direction.COMPENSATION else ""
    times = f"*{call.attempts}" if call.attempts > 1 else ""
    return f"{sign}{definition.steps[call.step].step_id}{'?' if call.unknown else ''}{times}"
