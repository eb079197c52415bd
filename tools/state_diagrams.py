#!/usr/bin/env python3
"""Writes the diagrams in docs/explanation/semantics.md from the transition table; with --check it only compares."""

import sys
from collections.abc import Iterable
from pathlib import Path

from sagad_server.domain.states import ENDED, SagaState, StepState
from sagad_server.domain.transitions import SAGA_MOVES, STEP_MOVES, Trigger

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "semantics.md"
BACKWARDS = frozenset({Trigger.UNDO, Trigger.UNDONE})


def main() -> int:
    old = PAGE.read_text(encoding="utf-8")
    new = old
    for name, diagram in {"saga": saga(), "forward": forward(), "back": back()}.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, _, rest = new.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            sys.exit(f"{PAGE} has no place for the diagram {name!r}")
        new = f"{before}{begin}{diagram}{end}{after}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
        return 0
    if new != old:
        print(f"{PAGE} is stale: run python tools/state_diagrams.py")
    return int(new != old)


def saga() -> str:
    """The states of a saga."""
    lines = [f"{old.name} --> {new.name}" for old, new in sorted(SAGA_MOVES)]
    ends = [f"{state.name} --> [*]" for state in SagaState if state in ENDED]
    return _diagram([f"[*] --> {SagaState.RUNNING.name}", *lines, *ends])


def forward() -> str:
    """The states of a step up to the end of its action."""
    moves = {move: to for move, to in STEP_MOVES.items() if not _is_back(*move)}
    return _diagram([f"[*] --> {StepState.NOT_STARTED.name}", *_edges(moves)])


def back() -> str:
    """The states of a step from the first call of its compensation."""
    return _diagram(_edges({move: to for move, to in STEP_MOVES.items() if _is_back(*move)}))


def _is_back(state: StepState, trigger: Trigger) -> bool:
    return trigger in BACKWARDS or state >= StepState.COMPENSATING


def _edges(moves: dict[tuple[StepState, Trigger], StepState]) -> Iterable[str]:
    """One line for each pair of states, in the order of the table."""
    triggers: dict[tuple[StepState, StepState], list[str]] = {}
    for (state, trigger), to in moves.items():
        triggers.setdefault((state, to), []).append(trigger.value)
    return [f"{state.name} --> {to.name}: {' / '.join(words)}" for (state, to), words in triggers.items()]


def _diagram(lines: Iterable[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"```mermaid\nstateDiagram-v2\n{body}```\n"


if __name__ == "__main__":
    sys.exit(main())
