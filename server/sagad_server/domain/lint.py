"""What is dangerous in a definition that keeps to all rules."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sagad.v1.common_pb2 import Payload
from sagad.v1.definition_pb2 import Definition as GivenDefinition
from sagad.v1.definition_pb2 import StepDefinition as GivenStep
from sagad_server.domain.checks import HOUR_MS, shown, shown_ms
from sagad_server.domain.definition import (
    DEFAULT_RETRY_FOR_MS,
    Definition,
    StepDefinition,
    compile_definition,
    milliseconds,
)
from sagad_server.domain.saga import needs_undo
from sagad_server.domain.states import StepKind

SHORT_RETRY_FOR_MS = HOUR_MS
"""Outages of less are common enough, and nobody should be called for each."""


class WarningCode(StrEnum):
    """Stable names that programs may rely on."""

    UNBOUNDED_WAIT = "UNBOUNDED_WAIT"
    SHORT_RETRY_FOR = "SHORT_RETRY_FOR"
    COMPENSATION_WITHOUT_OUTPUT = "COMPENSATION_WITHOUT_OUTPUT"
    OUTPUT_MAY_BE_ABSENT = "OUTPUT_MAY_BE_ABSENT"
    PARALLEL_SAME_RESOURCE = "PARALLEL_SAME_RESOURCE"
    INPUT_NEVER_USED = "INPUT_NEVER_USED"
    CHECK_AFTER_PIVOT = "CHECK_AFTER_PIVOT"
    PIVOT_WITHOUT_RETRIES = "PIVOT_WITHOUT_RETRIES"
    FIELD_WITHOUT_EFFECT = "FIELD_WITHOUT_EFFECT"
    TIMEOUT_BEYOND_DEADLINE = "TIMEOUT_BEYOND_DEADLINE"


@dataclass(frozen=True, slots=True)
class DefinitionWarning:
    """Something dangerous: where (a field path such as `definition.steps[2].timeout`), what, and what to do."""

    code: WarningCode
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} {self.field}: {self.message}"


Warnings = Iterator[DefinitionWarning]


def definition_warnings(message: GivenDefinition, example_input: Payload | None = None) -> list[DefinitionWarning]:
    """The dangers of a definition without violations: those of the whole, then step by step.

    With an example of a saga's input, its fields are looked at too.
    """
    definition = compile_definition(message)
    warnings = [*_unbounded_wait(definition, message), *_unused_input(definition, example_input)]
    for step in definition.steps:
        for rule in _STEP_RULES:
            warnings += rule(definition, step, message.steps[step.index])
    return warnings


def _unbounded_wait(definition: Definition, message: GivenDefinition) -> Warnings:
    waiting = [step for step in definition.steps if step.kind is StepKind.COMPENSATABLE and step.active]
    if message.HasField("timeout") or not waiting:
        return
    longest = max(waiting, key=_longest_wait_ms)
    yield DefinitionWarning(
        WarningCode.UNBOUNDED_WAIT,
        "definition.timeout",
        f"is not set, and a pending answer of {shown(longest.step_id)} is awaited for"
        f" {shown_ms(_longest_wait_ms(longest))} ({longest.max_retries + 1} times its completion_timeout of"
        f" {shown_ms(longest.completion_timeout_ms)}): set it, or give each saga a timeout at its start",
    )


def _longest_wait_ms(step: StepDefinition) -> int:
    return (step.max_retries + 1) * step.completion_timeout_ms


def _unused_input(definition: Definition, example_input: Payload | None) -> Warnings:
    active = [step for step in definition.steps if step.active]
    if not active or any(step.input is None for step in active):
        return  # it goes to a participant as a whole
    expressions = [each for step in active for each in (step.when, step.input) if each is not None]
    if not any(each.uses_input for each in expressions):
        yield DefinitionWarning(
            WarningCode.INPUT_NEVER_USED,
            "definition.steps",
            "make their inputs without the saga's input, which no expression mentions: read it, or start sagas without",
        )
    elif example_input is not None and all(each.input_fields is not None for each in expressions):
        read = {name for each in expressions for name in each.input_fields or ()}
        for name in sorted(example_input.json.struct_value.fields.keys() - read):
            yield DefinitionWarning(
                WarningCode.INPUT_NEVER_USED,
                f"input.json.{name}",
                "reaches no step, since no expression reads it: is the name right, here and in the definition?",
            )


def _short_retry_for(definition: Definition, step: StepDefinition, given: GivenStep) -> Warnings:
    if not given.retry.HasField("retry_for") or step.retry_for_ms >= SHORT_RETRY_FOR_MS:
        return
    if step.kind is StepKind.RETRIABLE:
        what = f"{shown(step.step_id)} comes after the pivot"
    elif needs_undo(step.kind, step.read_only):
        what = f"it bounds the compensation {shown(step.compensation)} too"
    else:
        return
    yield DefinitionWarning(
        WarningCode.SHORT_RETRY_FOR,
        f"{_path(step)}.retry.retry_for",
        f"is {shown_ms(step.retry_for_ms)}: {what}, and if participant {shown(step.participant)} is away for longer,"
        f" the saga is parked; give it {shown_ms(SHORT_RETRY_FOR_MS)} or more, or the default"
        f" ({shown_ms(DEFAULT_RETRY_FOR_MS)})",
    )


def _compensation_without_output(definition: Definition, step: StepDefinition, given: GivenStep) -> Warnings:
    readers = [each.step_id for each in definition.steps if step.step_id in _references(each)]
    if readers and needs_undo(step.kind, step.read_only):
        yield DefinitionWarning(
            WarningCode.COMPENSATION_WITHOUT_OUTPUT,
            f"{_path(step)}.compensation",
            f"{shown(step.compensation)} may be called without the output that {shown(readers[0])} reads, where it is"
            f" not known whether {shown(step.action)} has happened: let it find what to undo by its idempotency key or"
            " its input",
        )


def _output_may_be_absent(definition: Definition, step: StepDefinition, given: GivenStep) -> Warnings:
    for name, expression in (("when", step.when), ("input", step.input)):
        if expression is None or "has(" in expression.source:
            continue
        for step_id in sorted(expression.references):
            read = definition.steps[definition.index[step_id]]
            if read.when is not None or not read.active:
                yield DefinitionWarning(
                    WarningCode.OUTPUT_MAY_BE_ABSENT,
                    f"{_path(step)}.{name}",
                    f"reads the output of {shown(step_id)}, which has none where it is skipped"
                    f" ({'when' if read.active else 'active: false'}): ask has(steps.{step_id}.output) first",
                )


def _parallel_same_resource(definition: Definition, step: StepDefinition, given: GivenStep) -> Warnings:
    for other in definition.steps[: step.index]:
        related = (step.ancestors | step.descendants) >> other.index & 1
        same = step.participant == other.participant and _source(step) == _source(other)
        if same and not related and step.active and other.active and not (step.read_only and other.read_only):
            yield DefinitionWarning(
                WarningCode.PARALLEL_SAME_RESOURCE,
                f"{_path(step)}.depends_on",
                f"lets {shown(step.step_id)} run beside {shown(other.step_id)}, at the same participant"
                f" {shown(step.participant)} with the same input: where both touch the same thing, let one depend on"
                " the other",
            )
            return


def _check_after_pivot(definition: Definition, step: StepDefinition, given: GivenStep) -> Warnings:
    if step.kind is StepKind.RETRIABLE and step.read_only:
        yield DefinitionWarning(
            WarningCode.CHECK_AFTER_PIVOT,
            f"{_path(step)}.read_only",
            f"{shown(step.step_id)} changes nothing and comes after the pivot: if it refuses, the saga cannot go"
            " back and is parked; let it come before the pivot",
        )


def _pivot_without_retries(definition: Definition, step: StepDefinition, given: GivenStep) -> Warnings:
    if step.kind is StepKind.PIVOT and step.max_retries == 0:
        yield DefinitionWarning(
            WarningCode.PIVOT_WITHOUT_RETRIES,
            f"{_path(step)}.max_retries",
            f"is 0: a single lost answer of the pivot {shown(step.step_id)} parks the saga; allow retries, which carry"
            " the same idempotency key",
        )


def _field_without_effect(definition: Definition, step: StepDefinition, given: GivenStep) -> Warnings:
    if step.kind is StepKind.RETRIABLE and given.HasField("max_retries"):
        yield DefinitionWarning(
            WarningCode.FIELD_WITHOUT_EFFECT,
            f"{_path(step)}.max_retries",
            f"is {step.max_retries} and has no effect: a step after the pivot is tried again for retry_for, which is"
            f" {shown_ms(step.retry_for_ms)}; leave it out",
        )
    if step.kind is not StepKind.RETRIABLE and not step.compensation and given.retry.HasField("retry_for"):
        yield DefinitionWarning(
            WarningCode.FIELD_WITHOUT_EFFECT,
            f"{_path(step)}.retry.retry_for",
            f"is {shown_ms(step.retry_for_ms)} and has no effect: {shown(step.step_id)} has no compensation, and its"
            f" attempts are bounded by max_retries, which is {step.max_retries}; leave it out",
        )


def _timeout_beyond_deadline(definition: Definition, step: StepDefinition, given: GivenStep) -> Warnings:
    if definition.timeout_ms is None or step.kind is not StepKind.COMPENSATABLE:
        return  # the deadline does not apply from the pivot on
    for name, duration in (("timeout", given.timeout), ("completion_timeout", given.completion_timeout)):
        if milliseconds(duration) > definition.timeout_ms:
            yield DefinitionWarning(
                WarningCode.TIMEOUT_BEYOND_DEADLINE,
                f"{_path(step)}.{name}",
                f"is {shown_ms(milliseconds(duration))}, and the saga's deadline passes before, after"
                f" {shown_ms(definition.timeout_ms)}: shorten it, or give the definition a longer timeout",
            )


_STEP_RULES = (
    _short_retry_for,
    _compensation_without_output,
    _output_may_be_absent,
    _parallel_same_resource,
    _check_after_pivot,
    _pivot_without_retries,
    _field_without_effect,
    _timeout_beyond_deadline,
)


def _path(step: StepDefinition) -> str:
    return f"definition.steps[{step.index}]"


def _source(step: StepDefinition) -> str:
    return step.input.source if step.input is not None else ""


def _references(step: StepDefinition) -> frozenset[str]:
    nothing: frozenset[str] = frozenset()
    return nothing.union(*(each.references for each in (step.when, step.input) if each is not None))
