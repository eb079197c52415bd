"""What is dangerous is said, with its place and its value; what is not, is not."""

from collections.abc import Mapping
from typing import Any

import pytest
from support.definitions import definition, pivot, retriable, step
from support.play import payload

from sagad.v1.definition_pb2 import Definition
from sagad_server.domain.lint import WarningCode, definition_warnings

TIMED = {"timeout": "3600s"}
HARMLESS = definition(step("reserve", retry={"retryFor": "3600s"}), pivot("charge"), retriable("ship"), **TIMED)

CASES: dict[WarningCode, tuple[Definition, list[str], list[str]]] = {
    WarningCode.UNBOUNDED_WAIT: (
        definition(step("reserve"), step("approve", maxRetries=1, completionTimeout="604800s")),
        ["definition.timeout"],
        ["'approve'", "14d", "2 times", "7d"],
    ),
    WarningCode.SHORT_RETRY_FOR: (
        definition(
            step("reserve", retry={"retryFor": "60s"}),
            pivot("charge"),
            retriable("ship", retry={"retryFor": "30s"}),
            **TIMED,
        ),
        ["definition.steps[0].retry.retry_for", "definition.steps[2].retry.retry_for"],
        ["60s", "'undo_reserve'", "'inventory'", "30s", "'ship' comes after the pivot"],
    ),
    WarningCode.COMPENSATION_WITHOUT_OUTPUT: (
        definition(step("reserve"), step("charge", input="steps.reserve.output.id"), **TIMED),
        ["definition.steps[0].compensation"],
        ["'undo_reserve'", "'charge'", "'do_reserve'"],
    ),
    WarningCode.OUTPUT_MAY_BE_ABSENT: (
        definition(
            step("off", active=False),
            step("maybe", when="input.x == 1.0", readOnly=True, compensation=None),
            step("next", when="steps.off.output.ok", input="steps.maybe.output"),
            **TIMED,
        ),
        ["definition.steps[2].when", "definition.steps[2].input"],
        ["has(steps.off.output)", "active: false", "has(steps.maybe.output)"],
    ),
    WarningCode.PARALLEL_SAME_RESOURCE: (
        definition(step("root"), step("left", "root"), step("right", "root"), **TIMED),
        ["definition.steps[2].depends_on"],
        ["'left'", "'right'", "'inventory'"],
    ),
    WarningCode.INPUT_NEVER_USED: (
        definition(step("reserve", input="1.0"), step("charge", input="2.0"), **TIMED),
        ["definition.steps"],
        ["the saga's input"],
    ),
    WarningCode.CHECK_AFTER_PIVOT: (
        definition(pivot("charge"), retriable("check", readOnly=True), **TIMED),
        ["definition.steps[1].read_only"],
        ["'check'", "before the pivot"],
    ),
    WarningCode.PIVOT_WITHOUT_RETRIES: (
        definition(pivot("charge", maxRetries=0), **TIMED),
        ["definition.steps[0].max_retries"],
        ["'charge'", "is 0"],
    ),
    WarningCode.FIELD_WITHOUT_EFFECT: (
        definition(
            step("look", compensation=None, readOnly=True, retry={"retryFor": "7200s"}),
            pivot("charge", retry={"retryFor": "7200s"}),
            retriable("ship", maxRetries=5),
            **TIMED,
        ),
        [f"definition.steps[{field}" for field in ("0].retry.retry_for", "1].retry.retry_for", "2].max_retries")],
        ["2h", "is 5", "retry_for, which is 1d"],
    ),
    WarningCode.TIMEOUT_BEYOND_DEADLINE: (
        definition(
            step("reserve", timeout="120s", completionTimeout="7200s"),
            pivot("charge", completionTimeout="7200s"),
            timeout="60s",
        ),
        ["definition.steps[0].timeout", "definition.steps[0].completion_timeout"],
        ["120s", "2h", "60s"],
    ),
}


def codes(message: Definition, input: Any = None) -> list[tuple[str, str]]:  # noqa: A002
    found = definition_warnings(message, None if input is None else payload(input))
    return [(warning.code, warning.field) for warning in found]


@pytest.mark.parametrize("code", WarningCode)
def test_each_danger_is_said_where_it_is_with_its_values(code: WarningCode) -> None:
    message, fields, words = CASES[code]
    found = [warning for warning in definition_warnings(message) if warning.code is code]
    assert [warning.field for warning in found] == fields
    text = "\n".join(map(str, found))
    assert text.startswith(f"{code} {fields[0]}: ")
    for word in words:
        assert word in text


def test_a_harmless_definition_has_no_warnings() -> None:
    assert definition_warnings(HARMLESS) == []


@pytest.mark.parametrize(
    "steps",
    [
        # one after the other
        [step("left"), step("right")],
        # at two participants
        [step("root"), step("left", "root"), step("right", "root", participant="payment")],
        # about two things
        [step("root"), step("left", "root", input="input.a"), step("right", "root", input="input.b")],
        # both read only
        [step("root"), *(step(name, "root", compensation=None, readOnly=True) for name in ("left", "right"))],
        # one switched off
        [step("root"), step("left", "root", active=False), step("right", "root")],
    ],
)
def test_steps_that_cannot_meet_are_not_warned_of(steps: list[Mapping[str, Any]]) -> None:
    assert codes(definition(*map(dict, steps), **TIMED)) == []


def test_an_output_that_is_asked_for_first_is_not_warned_of() -> None:
    reader = step("next", input="has(steps.maybe.output) ? steps.maybe.output : null")
    maybe = step("maybe", when="input.x == 1.0", readOnly=True, compensation=None)
    assert codes(definition(maybe, reader, **TIMED)) == []


def test_a_field_of_the_example_that_no_expression_reads_is_told() -> None:
    message = definition(
        step("reserve", input='{"sku": input.sku}', when='has(input.rush) && input["sku"] != ""'), **TIMED
    )
    assert codes(message, {"sku": "A", "rush": True, "colour": "red"}) == [("INPUT_NEVER_USED", "input.json.colour")]
    assert codes(message, ["no", "fields"]) == []


@pytest.mark.parametrize("whole", [step("charge"), step("charge", input='{"all": input}')])
def test_an_input_that_a_step_gets_as_a_whole_is_used(whole: dict[str, Any]) -> None:
    message = definition(step("reserve", input='{"sku": input.sku}'), whole, **TIMED)
    assert codes(message, {"sku": "A", "colour": "red"}) == []
