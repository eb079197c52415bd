"""Data on its way to and from Python."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagad.v1 import common_pb2
from sagad_participant import BadAnswer, InvalidCall, Refused
from sagad_participant.outcomes import failure_of, success_of
from sagad_participant.payloads import MAX_JSON_DEPTH, json_of, payload_of, python_of

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | text
json_values = st.recursive(
    leaves, lambda below: st.lists(below, max_size=4) | st.dictionaries(text, below, max_size=4), max_leaves=20
)


@given(json_values)
def test_json_survives_the_way_there_and_back(value: Any) -> None:
    payload = common_pb2.Payload.FromString(payload_of(value).SerializeToString())
    assert python_of(payload) == value


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_the_deepest_json_fits_into_an_answer_and_deeper_is_refused() -> None:
    outcome = success_of(nested(MAX_JSON_DEPTH))
    assert common_pb2.StepOutcome.FromString(outcome.SerializeToString()) == outcome
    with pytest.raises(BadAnswer, match="nested deeper than 24 levels"):
        success_of(nested(MAX_JSON_DEPTH + 1))


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"n": 2**53 + 1}, r"output\.n is an integer beyond 2\^53"),
        ([1.0, float("nan")], r"output\[1\] is nan"),
        ({"a": {1: 2}}, "output.a has a key of type int"),
        ({"a\0": 1}, "output holds a NUL character"),
        ({"\ud800": 1}, "output holds a lone surrogate"),
        ({"a": {b"x"}}, "output.a is a set"),
        ({"a": b"x"}, "output.a is a bytes"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(value: Any, fault: str) -> None:
    with pytest.raises(BadAnswer, match=fault):
        payload_of(value)


@pytest.mark.parametrize("empty", [{}, [], "", 0, False])
def test_empty_values_are_values(empty: Any) -> None:
    assert json_of(payload_of({"x": empty}), "x") == {"x": empty}
    assert python_of(payload_of(empty)) == empty


def test_whole_numbers_come_back_as_int() -> None:
    assert type(python_of(payload_of(5.0))) is int
    assert type(python_of(payload_of(2.0**60))) is float


def test_data_is_not_read_as_json() -> None:
    assert python_of(payload_of(b"\xff")) == b"\xff"
    with pytest.raises(InvalidCall, match="input is 1 bytes of data"):
        json_of(payload_of(b"\xff"), "input")


@pytest.mark.parametrize("reason", ["", "card_declined", "1X", "X" * 64, "A-B", "A\n"])
def test_a_malformed_reason_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match="UPPER_SNAKE_CASE"):
        Refused(reason)


def test_a_pause_goes_only_with_a_retryable_refusal() -> None:
    with pytest.raises(ValueError, match="only with retryable=True"):
        Refused("BUSY", retry_after_s=1)
    with pytest.raises(ValueError, match="must be 0 or more"):
        Refused("BUSY", retryable=True, retry_after_s=-1)


def test_a_refusals_message_is_made_fit_to_send() -> None:
    failure = failure_of(Refused("BAD", "nul \0 surrogate \ud800 " + "x" * 2000), never_executed=True).failure
    assert failure.message.startswith("nul \N{REPLACEMENT CHARACTER} surrogate ? xxx")
    assert len(failure.message) == 1024
