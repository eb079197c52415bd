"""Example data for an exploration, and what it makes of a definition's expressions."""

from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field, replace

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.definition import Definition, StepDefinition
from sagad_server.domain.expressions import (
    Expression,
    ExpressionError,
    evaluate,
    evaluate_condition,
    failing_expression,
)


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


@dataclass(frozen=True, slots=True)
class Settled:
    """A definition whose expressions have become what they come to, and what was assumed for that."""

    definition: Definition
    assumptions: list[Assumption]


def settle(definition: Definition, example: Example) -> Generator[None, None, Settled]:
    """Evaluates each expression once, with a pause after each step: what comes of it is the same on every path, because
    a step starts only when all that it may read has succeeded or was skipped.

    A step whose `when` is false is switched off. An expression that fails goes on failing. Values are dropped: nobody
    looks at them. What reads data that the example does not give is assumed to be fine.
    """
    assumptions: list[Assumption] = []
    steps = list(definition.steps)
    skipped: set[str] = set()
    for step in sorted(definition.steps, key=lambda step: step.ancestors.bit_count()):
        steps[step.index] = _settle(step, example, skipped, assumptions)
        if not steps[step.index].active:
            skipped.add(step.step_id)
        yield
    assumptions.sort(key=lambda one: one.step)
    return Settled(replace(definition, steps=tuple(steps)), assumptions)


def with_failing_expression(definition: Definition, index: int) -> Definition:
    """The definition with an expression of one step that cannot be evaluated."""
    failing = replace(definition.steps[index], when=failing_expression("the expression cannot be evaluated"))
    steps = (failing if step.index == index else step for step in definition.steps)
    return replace(definition, steps=tuple(steps))


def _settle(
    step: StepDefinition, example: Example, skipped: Collection[str], assumptions: list[Assumption]
) -> StepDefinition:
    bare = replace(step, when=None, input=None)
    outputs = {step_id: output for step_id, output in example.outputs.items() if step_id not in skipped}

    def known(expression: Expression, field: str) -> bool:
        missing = _missing(expression, example, skipped)
        if missing:
            assumptions.append(Assumption(step.index, field, missing))
        return not missing

    if not step.active:
        return bare
    try:
        when = step.when if step.when is not None and known(step.when, "when") else None
        if when is not None and not evaluate_condition(when, example.input, outputs):
            return replace(bare, active=False)
        if step.input is not None and known(step.input, "input"):
            evaluate(step.input, example.input, outputs)
    except ExpressionError as error:
        return replace(bare, when=failing_expression(str(error)))
    return bare


def _missing(expression: Expression, example: Example, skipped: Collection[str]) -> tuple[str, ...]:
    """What is skipped has no output in the saga either: it is not missed."""
    unknown = expression.references - example.outputs.keys() - set(skipped)
    missing = [f"steps.{step_id}.output" for step_id in sorted(unknown)]
    if expression.uses_input and example.input is None:
        missing.insert(0, "input")
    return tuple(missing)
