"""Valid definitions, for tests of the rules."""

from google.protobuf import json_format
from hypothesis import strategies as st

from sagad.v1 import definition_pb2
from sagad_server.domain.definition_rules import GRPC_CODES

PARTICIPANTS = ("inventory", "payment", "shipping")


def step(step_id: str, *depends_on: str, **fields: object) -> dict[str, object]:
    """A valid compensatable step as ProtoJSON; fields that are None are left out."""
    made: dict[str, object] = {
        "stepId": step_id,
        "name": f"Step {step_id}",
        "description": f"What {step_id} does",
        "participant": "inventory",
        "action": f"do_{step_id}",
        "compensation": f"undo_{step_id}",
        "dependsOn": list(depends_on),
        **fields,
    }
    return {key: value for key, value in made.items() if value is not None}


def pivot(step_id: str, *depends_on: str, **fields: object) -> dict[str, object]:
    return step(step_id, *depends_on, **{"kind": "STEP_KIND_PIVOT", "compensation": None, **fields})


def retriable(step_id: str, *depends_on: str, **fields: object) -> dict[str, object]:
    return step(step_id, *depends_on, **{"kind": "STEP_KIND_RETRIABLE", "compensation": None, **fields})


def definition(*steps: dict[str, object], **fields: object) -> definition_pb2.Definition:
    """A definition of these steps that is valid but for them and the fields given."""
    made = {
        "definitionId": "order",
        "version": "1.0.0",
        "name": "Order",
        "description": "An order, from stock to door",
        "steps": list(steps),
        **fields,
    }
    return json_format.ParseDict(made, definition_pb2.Definition())


def _durations(low_ms: int, high_ms: int) -> st.SearchStrategy[str]:
    return st.integers(low_ms, high_ms).map(lambda ms: f"{ms // 1000}.{ms % 1000:03d}s")


@st.composite
def _options(draw: st.DrawFn) -> dict[str, object]:
    codes = draw(st.lists(st.sampled_from(sorted(GRPC_CODES)), unique=True, max_size=6))
    split = draw(st.integers(0, len(codes)))
    initial = draw(st.integers(1, 3_600_000))
    retry = {
        "initialBackoff": f"{initial / 1000:.3f}s",
        "maxBackoff": draw(_durations(initial, 86_400_000)),
        "multiplier": draw(st.floats(1, 10)),
        "retryFor": draw(_durations(1000, 30 * 86_400_000)),
        "retryableCodes": codes[:split],
        "finalCodes": codes[split:],
    }
    options: dict[str, object] = {
        "maxRetries": draw(st.integers(0, 10)),
        "timeout": draw(_durations(1000, 3_600_000)),
        "completionTimeout": draw(_durations(1000, 30 * 86_400_000)),
        "retry": retry,
        "active": draw(st.booleans()),
        "participant": draw(st.sampled_from(PARTICIPANTS)),
        "when": draw(st.sampled_from(["true", "input.amount > 10.0"])),
    }
    return {key: value for key, value in options.items() if draw(st.booleans())}


@st.composite
def valid_definitions(draw: st.DrawFn) -> definition_pb2.Definition:
    """Chains and graphs, with and without a pivot, their steps listed in any order."""
    before = draw(st.integers(0, 6))
    with_pivot = before == 0 or draw(st.booleans())
    after = draw(st.integers(0, 6)) if with_pivot else 0
    chain = draw(st.booleans())
    steps: list[dict[str, object]] = []

    def dependencies(candidates: range, *always: int) -> list[str]:
        chosen = draw(st.lists(st.sampled_from(candidates), unique=True, max_size=3)) if candidates else []
        return [] if chain else [f"s{i}" for i in {*chosen, *always}]

    for i in range(before):
        undo = {"compensation": None, "readOnly": True} if draw(st.booleans()) else {}
        steps.append(step(f"s{i}", *dependencies(range(i)), **undo, **draw(_options())))
    if with_pivot:
        steps.append(pivot(f"s{before}", *dependencies(range(0), *range(before)), **draw(_options())))
        for i in range(before + 1, before + 1 + after):
            last = draw(st.integers(before, i - 1))
            steps.append(retriable(f"s{i}", *dependencies(range(i), last), **draw(_options())))
    if any(each["dependsOn"] for each in steps):
        steps = draw(st.permutations(steps))
    return definition(*steps, timeout=draw(_durations(1000, 365 * 86_400_000)))
