"""What expressions may read, what they give, and what they cost."""

import json
import math
import time
from contextlib import suppress

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from hypothesis import given, settings
from hypothesis import strategies as st

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.expressions import (
    MAX_COSTLY_BYTES,
    ExpressionError,
    compile_expression,
    evaluate,
    evaluate_condition,
)

STEPS = ("reserve", "charge-card")


def payload(value: object) -> Payload:
    return Payload(json=json_format.Parse(json.dumps(value), Value()))


ORDER = payload({"sku": "A-1", "qty": 3, "vip": True, "lines": [{"sku": "A", "qty": 1}, {"sku": "B", "qty": 2}]})
OUTPUTS = {"reserve": payload({"id": "r-7"})}


def value_of(source: str, saga_input: Payload | None = ORDER, outputs: dict[str, Payload] = OUTPUTS) -> object:
    result = evaluate(compile_expression(source, step_ids=STEPS), saga_input, outputs)
    return json.loads(json_format.MessageToJson(result.json))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("input.sku", "A-1"),
        ("input.qty + 1.0", 4),
        ("int(input.qty) + 1", 4),
        ("size(input.lines)", 2),
        ('{"sku": input.sku, "reservation": steps.reserve.output.id}', {"sku": "A-1", "reservation": "r-7"}),
        ('steps["reserve"].output.id', "r-7"),
        ('steps["reserve"]["output"]["id"]', "r-7"),
        ("has(steps.reserve.output)", True),
        ('has(steps["charge-card"].output)', False),
        ("has(input.coupon) ? input.coupon : null", None),
        ("input.lines.filter(l, l.qty > 1.0).map(l, l.sku)", ["B"]),
        ("input.lines.exists(l, l.sku == input.sku)", False),
        ("input.qty // the whole of it", 3),
        ('b"\\x01\\xff"', "Af8="),
        ('duration("90s")', "90s"),
        ('timestamp("2025-01-02T03:04:05Z")', "2025-01-02T03:04:05Z"),
        ("[1, 2.5, true, null]", [1, 2.5, True, None]),
    ],
)
def test_an_expression_gives_json(source: str, expected: object) -> None:
    assert value_of(source) == expected


def test_integers_beyond_2_53_become_strings() -> None:
    assert value_of("[9007199254740991, 9007199254740993, -9007199254740993, 18446744073709551615u]") == [
        9007199254740991,
        "9007199254740993",
        "-9007199254740993",
        "18446744073709551615",
    ]


def test_the_steps_it_reads_are_known() -> None:
    expression = compile_expression('has(steps.reserve.output) || steps["charge-card"].output.ok', step_ids=STEPS)
    assert expression.references == {"reserve", "charge-card"}
    assert not expression.uses_input


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "Syntax error"),
        ("input.qty +", "Syntax error: mismatched input '<EOF>' (line 1, column 12)"),
        ("order", "undeclared reference to 'order' (line 1, column 1)"),
        ("now()", "undeclared reference to 'now'"),
        ("steps.ship.output", "there is no step 'ship'; the steps are charge-card, reserve"),
        ("steps.reserve", "steps is read as steps.<step_id>.output"),
        ("steps.reserve.outputs", "steps is read as"),
        ("has(steps.reserve)", "steps is read as"),
        ("steps", "steps is read as"),
        ("steps.charge-card.output", "a step_id with '-' needs brackets: steps[\"charge-card\"].output"),
        ("steps[input.sku].output", "steps is read as"),
        ("steps.map(s, s)", "steps is read as"),
        ('"a" + 1', "no matching overload for '_+_' applied to '(string, int)'"),
        ("size(input.lines) + 1.0", "JSON numbers are doubles"),
        ("google.protobuf.Struct{}", "builds a message google.protobuf.Struct"),
        ("input.lines.map(l, input.lines.map(m, m))", "has a macro within a macro"),
        ("input.lines.map(input, 1)", "a macro's variable cannot be named input"),
        ("(input.lines + input.lines).map(l, l)", "not over a computed list"),
        ("input.l" + ".map(x, x)" * 9, "has 9 macros; at most 8 are allowed"),
        ("input.l.map(x, [input.a, input.b, input.c, input.d, input.e])", "5 times within macros; at most 4"),
        ("'" + "x" * 1023 + "'", "has 1025 bytes; at most 1024 are allowed"),
        ("'" + "\u20ac" * 341 + "'", "has 1025 bytes"),
        ("1)}//", "Syntax error"),
        ('1, content_type: "x"', "Syntax error"),
        ("[" * 200, "recursion limit exceeded. limit: 32"),
    ],
)
def test_what_is_wrong_with_the_source_is_found_when_it_is_compiled(source: str, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source, step_ids=STEPS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("input.qty + 1", "JSON numbers are doubles: write 1.0 instead of 1"),
        ("input.coupon", 'Key not found in map : "coupon"'),
        ('steps["charge-card"].output.id', "charge-card has no output because it was skipped: ask has("),
        ("1 / 0", "divide by zero"),
        ("0.0 / 0.0", "the result holds nan, which is no JSON number"),
        ('{"a": [1.0 / 0.0]}', "the result holds inf, which is no JSON number"),
        ('"\\u0000"', "the result holds a NUL character"),
        ('{"a\\u0000": 1}', "the result holds a NUL character, which cannot be stored, in the key 'a\\x00'"),
        ("{dyn(1): 1}", "from 'int' to 'string'"),
        ("type(input)", "not convertable to JSON"),
        ("input.sku.matches('[')", "invalid regular expression"),
    ],
)
def test_what_is_wrong_with_the_value_is_said(source: str, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value_of(source)
    assert said in str(caught.value)


def test_a_saga_without_input_reads_null() -> None:
    assert value_of("input == null", None) is True
    assert value_of("input == null", Payload()) is True


def test_a_step_that_succeeded_without_output_has_null() -> None:
    assert value_of("has(steps.reserve.output) && steps.reserve.output == null", outputs={"reserve": Payload()}) is True


def test_bytes_are_not_read() -> None:
    with pytest.raises(ExpressionError, match="the saga's input is bytes; expressions read JSON only"):
        value_of("input.sku", Payload(data=b"{}"))
    with pytest.raises(ExpressionError, match="the output of step 'reserve' is bytes"):
        value_of("steps.reserve.output", outputs={"reserve": Payload(data=b"{}")})
    assert value_of("1", Payload(data=b"{}"), {"reserve": Payload(data=b"{}")}) == 1


def test_a_condition_is_a_bool() -> None:
    condition = compile_expression("input.vip && input.qty > 2.0", step_ids=STEPS, condition=True)
    assert evaluate_condition(condition, ORDER, {}) is True
    assert evaluate_condition(condition, payload({"vip": False, "qty": 1}), {}) is False


def test_a_condition_of_another_type_is_refused() -> None:
    with pytest.raises(ExpressionError, match="must be of type bool, and is of type int"):
        compile_expression("1", step_ids=STEPS, condition=True)
    for source in ("input.sku", "input.qty", "input"):
        with pytest.raises(ExpressionError, match="the result is no bool"):
            evaluate_condition(compile_expression(source, step_ids=STEPS, condition=True), ORDER, {})
    with pytest.raises(ExpressionError, match="Key not found"):
        evaluate_condition(compile_expression("input.nothing", step_ids=STEPS, condition=True), ORDER, {})


def test_a_result_is_at_most_256_kib() -> None:
    with pytest.raises(ExpressionError, match="at most 262144 are allowed"):
        value_of("[input.s, input.s]", payload({"s": "x" * 140_000}))


@pytest.mark.parametrize("source", ["input.l.map(x, x)", "[input.s.matches('a')]"])
def test_what_costs_more_than_it_reads_is_bounded(source: str) -> None:
    with pytest.raises(ExpressionError, match="at most 32,768 are allowed with a macro or matches"):
        value_of(source, payload({"s": "x" * MAX_COSTLY_BYTES, "l": []}))
    with pytest.raises(ExpressionError, match="a list or map of 1,001 elements; at most 1,000"):
        value_of(source, payload({"s": "x", "l": [True] * 1001}))
    assert value_of(source, payload({"s": "a", "l": [True] * 1000})) in ([True] * 1000, [True])


def test_a_result_is_not_nested_too_deep() -> None:
    deep: object = 1
    for _ in range(20):
        deep = {"a": deep}
    assert value_of("[[[input]]]", payload(deep)) == [[[deep]]]
    with pytest.raises(ExpressionError, match="nested deeper than 24 levels"):
        value_of("[[[[[input]]]]]", payload(deep))


def test_an_evaluation_takes_microseconds() -> None:
    expression = compile_expression('{"sku": input.sku, "r": steps.reserve.output.id}', step_ids=STEPS)
    best = math.inf
    for _ in range(200):
        start = time.perf_counter()
        evaluate(expression, ORDER, OUTPUTS)
        best = min(best, time.perf_counter() - start)
    assert best < 200e-6, "ten times what is normal"


_TOKENS = """
    input steps reserve .output .sku .lines .a [0] [1] ['a'] ( ) [ ] { } , : ? + - * / % == < && || ! in 1 2.5 'x'
    b'\\xff' true null has( .map(x, .filter(x, .all(x, x int( double( string( size( timestamp( duration( type( dyn(
    .matches( //
"""


@settings(max_examples=500)
@given(st.lists(st.sampled_from(_TOKENS.split()), max_size=12).map(" ".join))
def test_any_source_compiles_or_is_refused_and_evaluates_or_fails(source: str) -> None:
    with suppress(ExpressionError):
        evaluate(compile_expression(source, step_ids=STEPS), ORDER, OUTPUTS)
