"""What makes a definition invalid, and that all of it is said at once."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st
from support.definitions import PARTICIPANTS, definition, pivot, retriable, step, valid_definitions

from sagad.v1 import definition_pb2
from sagad_server.domain.definition import compile_definition
from sagad_server.domain.validation import ValidationLimits, definition_violations

Steps = list[dict[str, object]]


def faults(message: definition_pb2.Definition, limits: ValidationLimits | None = None) -> dict[str, str]:
    found = definition_violations(message, limits or ValidationLimits(), participants=PARTICIPANTS)
    assert len({each.field for each in found}) == len(found), f"one fault a field here: {found}"
    return {each.field: each.description for each in found}


def only_fault(message: definition_pb2.Definition) -> tuple[str, str]:
    found = faults(message)
    assert len(found) == 1, found
    return next(iter(found.items()))


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"definitionId": ""}, "definition_id", "is required: 2-100 characters"),
        ({"definitionId": "x"}, "definition_id", "has 1 characters ('x'); 2-100 are allowed"),
        ({"definitionId": "x" * 101}, "definition_id", "has 101 characters"),
        ({"definitionId": "an order"}, "definition_id", "is 'an order'; a-z, A-Z, 0-9, '.', '_' and '-' are allowed"),
        ({"version": ""}, "version", "is required"),
        ({"version": "1.0"}, "version", "is '1.0'; a semantic version such as 1.0.0 is needed"),
        ({"version": "01.0.0"}, "version", "a semantic version"),
        ({"version": "1.0.0\n"}, "version", "a semantic version"),
        ({"version": "1.0.0-" + "a" * 100}, "version", "has 106 characters"),
        ({"name": "x"}, "name", "has 1 characters"),
        ({"name": "a\0b"}, "name", "holds a NUL character, which cannot be stored: 'a\\x00b'"),
        ({"description": "too short"}, "description", "has 9 characters ('too short'); 10-500 are allowed"),
        ({"description": "x" * 501}, "description", "has 501 characters"),
        ({"timeout": "0.999s"}, "timeout", "is 999ms; 1s-365d is allowed"),
        ({"timeout": "31536001s"}, "timeout", "1s-365d is allowed"),
        ({"timeout": "-1s"}, "timeout", "is -1s"),
    ],
)
def test_a_fault_of_the_definition_is_named(fields: dict[str, object], field: str, said: str) -> None:
    found, description = only_fault(definition(step("reserve"), **fields))
    assert found == f"definition.{field}"
    assert said in description


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"stepId": ""}, "step_id", "is required"),
        ({"stepId": "r"}, "step_id", "2-100 are allowed"),
        ({"stepId": "1st"}, "step_id", "is '1st'; a letter, then a-z, A-Z, 0-9, '_' and '-' are allowed"),
        ({"stepId": "a.b"}, "step_id", "is 'a.b'"),
        ({"name": ""}, "name", "is required"),
        ({"description": "short"}, "description", "10-500 are allowed"),
        ({"participant": "warehouse"}, "participant", "is 'warehouse'; known participants: inventory, payment, ship"),
        ({"action": "a"}, "action", "2-100 are allowed"),
        ({"compensation": "a"}, "compensation", "2-100 are allowed"),
        ({"compensation": None}, "compensation", "is required; a step that changes nothing says read_only: true"),
        ({"readOnly": True}, "compensation", "a read_only step has nothing to undo"),
        ({"maxRetries": -1}, "max_retries", "is -1; 0-10 is allowed"),
        ({"maxRetries": 11}, "max_retries", "is 11; 0-10 is allowed"),
        ({"timeout": "0.5s"}, "timeout", "is 500ms; 1s-1h is allowed"),
        ({"timeout": "3600.001s"}, "timeout", "is 3600s; 1s-1h is allowed"),
        ({"completionTimeout": "2592001s"}, "completion_timeout", "1s-30d is allowed"),
        ({"retry": {"initialBackoff": "0s"}}, "retry.initial_backoff", "is 0ms; 1ms-1h is allowed"),
        ({"retry": {"maxBackoff": "0.1s"}}, "retry.max_backoff", "is 100ms; 200ms-1d is allowed"),
        ({"retry": {"initialBackoff": "60s", "maxBackoff": "59s"}}, "retry.max_backoff", "is 59s; 60s-1d is allowed"),
        ({"retry": {"multiplier": 0.5}}, "retry.multiplier", "is 0.5; 1-10 is allowed"),
        ({"retry": {"multiplier": "NaN"}}, "retry.multiplier", "is nan; 1-10 is allowed"),
        ({"retry": {"retryFor": "2592001s"}}, "retry.retry_for", "1s-30d is allowed"),
        ({"retry": {"finalCodes": ["OK"]}}, "retry.final_codes[0]", "is 'OK'; known codes: ABORTED"),
        ({"retry": {"retryableCodes": ["unavailable"]}}, "retry.retryable_codes[0]", "is 'unavailable'; known codes"),
        (
            {"retry": {"retryableCodes": ["INTERNAL"], "finalCodes": ["UNKNOWN", "INTERNAL"]}},
            "retry.final_codes[1]",
            "names INTERNAL again; a code stands once in the two lists",
        ),
        ({"dependsOn": ["nothing"]}, "depends_on[0]", "is 'nothing'; known steps: first, reserve"),
        ({"dependsOn": ["first", "first"]}, "depends_on[1]", "names 'first' again"),
        ({"dependsOn": ["reserve"]}, "depends_on", "makes a cycle: reserve -> reserve"),
        ({"when": "input.amount >"}, "when", "Syntax error"),
        ({"when": "size(input.items)"}, "when", "must be of type bool, and is of type int"),
        ({"when": "a\0b"}, "when", "NUL"),
        ({"input": "amount"}, "input", "undeclared reference to 'amount' (line 1, column 1)"),
        ({"input": "steps.third.output"}, "input", "there is no step 'third'; the steps are first, reserve"),
        (
            {"input": "steps.reserve.output"},
            "input",
            "reads the output of 'reserve', on which 'reserve' does not depend",
        ),
        ({"input": "'" + "x" * 1023 + "'"}, "input", "has 1025 bytes; at most 1024 are allowed"),
    ],
)
def test_a_fault_of_a_step_is_named(fields: dict[str, object], field: str, said: str) -> None:
    found, description = only_fault(definition(step("first"), step("reserve", **fields)))
    assert found == f"definition.steps[1].{field}"
    assert said in description


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([retriable("s0")], {0: "is RETRIABLE, which needs a PIVOT before it"}),
        ([pivot("s0"), pivot("s1")], {1: "is a second PIVOT; steps[0] is one already"}),
        ([pivot("s0"), step("s1")], {1: "comes after the pivot 's0' and must be RETRIABLE"}),
        ([retriable("s0"), pivot("s1")], {0: "comes before the pivot 's1' and must be COMPENSATABLE"}),
    ],
)
def test_kinds_must_fit_their_place_around_the_pivot(steps: Steps, expected: dict[int, str]) -> None:
    assert faults(definition(*steps)) == {f"definition.steps[{i}].kind": said for i, said in expected.items()}


def test_a_step_beside_the_pivot_is_refused() -> None:
    steps = [step("s0"), pivot("s1", "s0"), retriable("s2", "s1"), step("s3", "s0")]
    field, description = only_fault(definition(*steps))
    assert field == "definition.steps[3].depends_on"
    assert "each step must come before or after the pivot" in description


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (pivot("pay", compensation="refund"), "compensation"),
        (pivot("pay", readOnly=True), "read_only"),
    ],
)
def test_a_pivot_has_no_compensation_and_changes_something(made: dict[str, object], field: str) -> None:
    assert only_fault(definition(made))[0] == f"definition.steps[0].{field}"


def test_a_retriable_step_has_no_compensation() -> None:
    field, description = only_fault(definition(pivot("pay"), retriable("ship", compensation="unship")))
    assert field == "definition.steps[1].compensation"
    assert "a RETRIABLE step is never undone" in description


def test_a_cycle_is_named_step_by_step() -> None:
    steps = [step("s0"), step("s1", "s3"), step("s2", "s1"), step("s3", "s2", "s0")]
    field, description = only_fault(definition(*steps))
    assert field.endswith(".depends_on")
    assert description in {
        "makes a cycle: s1 -> s3 -> s2 -> s1",
        "makes a cycle: s2 -> s1 -> s3 -> s2",
        "makes a cycle: s3 -> s2 -> s1 -> s3",
    }


def test_a_step_id_is_taken_once() -> None:
    field, description = only_fault(definition(step("s0"), step("s1"), step("s0")))
    assert (field, description) == ("definition.steps[2].step_id", "'s0' is taken by steps[0]")


def test_an_expression_reads_only_what_its_step_depends_on() -> None:
    steps = [step("s0"), step("s1", "s0"), step("s2", "s0", input="[steps.s0.output, steps.s1.output]")]
    field, description = only_fault(definition(*steps))
    assert field == "definition.steps[2].input"
    assert description == "reads the output of 's1', on which 's2' does not depend"


def test_an_expression_may_read_what_its_step_depends_on_through_another() -> None:
    assert faults(definition(step("s0"), step("s1"), step("s2", when="has(steps.s0.output)"))) == {}


@pytest.mark.parametrize(("count", "valid"), [(0, False), (1, True), (100, True), (101, False)])
def test_a_definition_has_1_to_100_steps(count: int, valid: bool) -> None:
    found = faults(definition(*(step(f"s{i}") for i in range(count))))
    assert found == ({} if valid else {"definition.steps": f"has {count} steps; 1-100 are allowed"})


def test_an_unknown_kind_is_refused() -> None:
    message = definition(step("s0"))
    message.steps[0].kind = 9  # type: ignore[assignment]
    assert faults(message) == {"definition.steps[0].kind": "is 9, which is no kind of step"}


def test_a_malformed_duration_is_refused() -> None:
    message = definition(step("s0"))
    message.timeout.CopyFrom(Duration(seconds=5, nanos=-1))
    assert faults(message) == {"definition.timeout": "is no duration: 5 seconds and -1 nanoseconds"}


def test_every_fault_is_named_at_once() -> None:
    message = definition(
        step("s0", participant="warehouse", maxRetries=11, dependsOn=["s9"], when="foo"),
        step("s1", compensation=None, timeout="0s", input="steps.s7.output"),
        version="one",
        description="short",
    )
    assert set(faults(message)) == {
        "definition.version",
        "definition.description",
        "definition.steps[0].participant",
        "definition.steps[0].max_retries",
        "definition.steps[0].depends_on[0]",
        "definition.steps[0].when",
        "definition.steps[1].compensation",
        "definition.steps[1].timeout",
        "definition.steps[1].input",
    }


def test_configured_limits_replace_the_defaults() -> None:
    limits = ValidationLimits(max_steps_per_definition=1)
    assert faults(definition(step("s0"), step("s1")), limits) == {"definition.steps": "has 2 steps; 1-1 are allowed"}


_TEXTS = st.one_of(
    st.sampled_from(["", "s0", "s1", "order", "1.0.0", "inventory", "input.a", "steps.s0.output", "INTERNAL", "a\0b"]),
    st.text(max_size=12),
)
_DURATIONS = st.builds(Duration, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))


@st.composite
def _damaged(draw: st.DrawFn) -> definition_pb2.Definition:
    message = draw(valid_definitions())
    for _ in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from(list(message.steps)))
        targets = [(message, "Definition"), (step, "StepDefinition"), (step.retry, "RetryPolicy")]
        target, _ = draw(st.sampled_from(targets))
        field = draw(st.sampled_from(list(target.DESCRIPTOR.fields)))
        if field.message_type is not None:
            if field.message_type.full_name == "google.protobuf.Duration":
                getattr(target, field.name).CopyFrom(draw(_DURATIONS))
        elif field.cpp_type == field.CPPTYPE_STRING and field.is_repeated:
            getattr(target, field.name).append(draw(_TEXTS))
        elif field.cpp_type == field.CPPTYPE_STRING:
            setattr(target, field.name, draw(_TEXTS))
        elif field.cpp_type == field.CPPTYPE_BOOL:
            setattr(target, field.name, draw(st.booleans()))
        elif field.cpp_type == field.CPPTYPE_DOUBLE:
            setattr(target, field.name, draw(st.floats()))
        else:
            setattr(target, field.name, draw(st.integers(-(2**31), 2**31 - 1)))
    return message


def test_a_name_that_cannot_be_printed_is_shown_escaped_among_the_known_ones() -> None:
    wrong = definition(step("a\0b"), step("two", "none"))
    found = definition_violations(wrong, ValidationLimits(), participants=PARTICIPANTS)
    assert any("known steps: 'a\\x00b', two" in each.description for each in found), found


@settings(max_examples=200)
@given(_damaged())
def test_a_damaged_definition_gives_violations_or_compiles(message: definition_pb2.Definition) -> None:
    found = definition_violations(message, ValidationLimits(), participants=PARTICIPANTS)
    if not found:
        compile_definition(message)
    for each in found:
        assert each.field.startswith("definition.")
        assert "\0" not in each.description
        assert "\n" not in each.description
