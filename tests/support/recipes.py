"""Definitions for tests against the participant `echo`, whose action is `do` and whose compensation is `undo`."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import ParseDict

from sagad.v1.definition_pb2 import Definition

FAILING = '{"x": input.missing}'  # an expression that can be evaluated only where the input has the field


def step(step_id: str, **fields: Any) -> dict[str, Any]:
    """A step of echo, as in a definition file."""
    step: dict[str, Any] = {
        "step_id": step_id,
        "name": f"Step {step_id}",
        "description": f"The step {step_id}, which echoes",
        "participant": "echo",
        "action": "do",
        "compensation": "undo",
    }
    return {key: value for key, value in {**step, **fields}.items() if value is not None}


def recipe(definition_id: str, *steps: dict[str, Any], version: str = "1.0.0") -> dict[str, Any]:
    """A definition, as in a definition file."""
    return {
        "definition_id": definition_id,
        "version": version,
        "name": f"Recipe {definition_id}",
        "description": f"The recipe {definition_id}, for tests",
        "steps": list(steps),
    }


def succeeding(definition_id: str, *, steps: int = 2) -> dict[str, Any]:
    """Succeeds."""
    return recipe(definition_id, *(step(f"s{number}") for number in range(steps)))


def compensating(definition_id: str) -> dict[str, Any]:
    """Its second step cannot be called, so that the first is undone; with `missing` in the input it succeeds."""
    return recipe(definition_id, step("first"), step("second", input=FAILING))


def parking(definition_id: str) -> dict[str, Any]:
    """Its last step, after the pivot, cannot be called, so that it parks; with `missing` in the input it succeeds."""
    pivot = step("pay", kind="STEP_KIND_PIVOT", compensation=None)
    last = step("ship", kind="STEP_KIND_RETRIABLE", compensation=None, input=FAILING)
    return recipe(definition_id, step("reserve"), pivot, last)


def definition(fields: dict[str, Any]) -> Definition:
    """The message."""
    return ParseDict(fields, Definition())
