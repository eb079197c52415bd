import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from sagad.v1.common_pb2 import Payload
from sagad_client.payloads import Json, from_payload, to_payload

json_values = st.recursive(
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner | st.none(), max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_a_json_value_comes_back_as_it_was(value: Json) -> None:
    payload = to_payload(value)
    assert payload is not None
    assert from_payload(Payload.FromString(payload.SerializeToString())) == value


def test_a_json_value_travels_as_json() -> None:
    value = {"sku": "A-1", "lines": [{"quantity": 2, "gift": False, "note": None}], "price": 9.99}
    assert MessageToDict(to_payload(value) or Payload()) == {"json": value}


def test_bytes_travel_as_data() -> None:
    assert to_payload(b"\x00\xff") == Payload(data=b"\x00\xff")
    assert from_payload(Payload(data=b"\x00\xff")) == b"\x00\xff"


def test_none_is_no_payload_and_a_payload_stays_itself() -> None:
    payload = Payload(data=b"x", content_type="text/plain")
    assert to_payload(None) is None
    assert to_payload(payload) is payload
    assert from_payload(Payload()) is None


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 12345678901234567890])
def test_an_integer_that_would_lose_digits_is_refused_by_its_path(number: int) -> None:
    with pytest.raises(ValueError, match=rf"input\.lines\[1\]\.id is {number}, beyond 2\^53"):
        to_payload({"lines": [{}, {"id": number}]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nul\0", "half \ud800"])
def test_what_cannot_be_stored_is_refused_by_its_path(value: Json) -> None:
    with pytest.raises(ValueError, match=r"^input\.x "):
        to_payload({"x": value})


def test_what_is_no_json_is_refused_by_its_path() -> None:
    with pytest.raises(TypeError, match=r"input\.when\[0\] is a set"):
        to_payload({"when": [{1}]})
    with pytest.raises(TypeError, match="has the key 1"):
        to_payload({"a": {1: 2}})
    with pytest.raises(TypeError, match=r"input\.a is a bytes"):
        to_payload({"a": b"x"})


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Json] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested deeper than 32"):
        to_payload(loop)
