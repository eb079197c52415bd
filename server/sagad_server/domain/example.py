"""Example data for an exploration, and what is assumed where it is not enough."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.definition import Definition
from sagad_server.domain.expressions import Expression, failing_expression


@dataclass(frozen=True, slots=True)
class Example:
    """What a saga and its participants might bring."""

    input: Payload | None = None
    outputs: Mapping[str, Payload] = field(default_factory=dict)
    """By step_id."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """An expression that is not evaluated: a `when` is taken for true, and what an `input` gives is not looked at."""

    step: int
    field: str
    """`when` or `input`."""
    missing: tuple[str, ...]
    """What it reads and the example does not give, such as `input` or `steps.reserve.output`."""


def assume(definition: Definition, example: Example) -> tuple[Definition, list[Assumption]]:
    """The definition without the expressions that read what the example does not give.

    All others are evaluated as in any saga; where that fails, it is what the definition does with such data.
    """
    # A step that is switched off has no output in any saga: there is nothing to be missed.
    known = {*example.outputs, *(step.step_id for step in definition.steps if not step.active)}
    assumptions: list[Assumption] = []
    steps = []
    for step in definition.steps:
        when, own_input = (_missing(each, example, known) for each in (step.when, step.input))
        if when:
            assumptions.append(Assumption(step.index, "when", when))
            step = replace(step, when=None)
        if own_input:
            assumptions.append(Assumption(step.index, "input", own_input))
            step = replace(step, input=None)
        steps.append(step)
    return replace(definition, steps=tuple(steps)), assumptions


def with_failing_expression(definition: Definition, index: int) -> Definition:
    """The definition with an expression of one step that cannot be evaluated."""
    failing = replace(definition.steps[index], when=failing_expression("the expression cannot be evaluated"))
    steps = (failing if step.index == index else step for step in definition.steps)
    return replace(definition, steps=tuple(steps))


def _missing(expression: Expression | None, example: Example, known: Collection[str]) -> tuple[str, ...]:
    if expression is None:
        return ()
    missing = [f"steps.{name}.output" for name in sorted(expression.references) if name not in known]
    if expression.uses_input and example.input is None:
        missing.insert(0, "input")
    return tuple(missing)
