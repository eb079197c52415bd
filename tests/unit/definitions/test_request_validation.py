"""What makes a request invalid, and that all of it is said at once."""

import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sagad.v1 import common_pb2, saga_pb2, saga_service_pb2
from sagad_server.domain.errors import InvalidArgument, Violation
from sagad_server.domain.payloads import MAX_JSON_DEPTH, json_fault, most_elements
from sagad_server.domain.validation import RequestChecker, ValidationLimits, start_violations


def start(**fields: object) -> saga_service_pb2.StartSagaRequest:
    return json_format.ParseDict({"definitionId": "order", **fields}, saga_service_pb2.StartSagaRequest())


def check() -> RequestChecker:
    return RequestChecker(ValidationLimits())


def nested(depth: int, *, in_objects: bool = False) -> Value:
    value = Value()
    node = value
    for _ in range(depth):
        node = node.struct_value.fields["a"] if in_objects else node.list_value.values.add()
    node.number_value = 1
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"namespace": "team-1", "sagaId": "order:17_a.b-C", "version": "1.0.0-rc.1+7"},
        {"labels": {"region/zone": "eu", "a.b_c-d": ""}, "metadata": {"x-tenant": "acme Ltd.", "a.b": ""}},
        {"input": {"json": {"a": [1, "x", None, {"b": True}]}}, "timeout": "31536000s"},
        {"input": {"data": "AAAA", "contentType": "application/pdf"}},
        {"sagaId": "x" * 128, "timeout": "1s"},
    ],
)
def test_a_valid_start_has_no_violations(fields: dict[str, object]) -> None:
    assert start_violations(start(**fields), ValidationLimits()) == []


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"namespace": "Team"}, "namespace", "is 'Team'; a-z, 0-9 and '-' are allowed"),
        ({"namespace": "x" * 64}, "namespace", "has 64 characters"),
        ({"sagaId": "a b"}, "saga_id", "is 'a b'; a-z, A-Z, 0-9"),
        ({"sagaId": "x" * 129}, "saga_id", "has 129 characters"),
        ({"sagaId": "a\n"}, "saga_id", "is 'a\\n'"),
        ({"definitionId": ""}, "definition_id", "is required"),
        ({"version": "latest"}, "version", "is 'latest'; a semantic version"),
        ({"timeout": "0s"}, "timeout", "is 0ms; 1s-365d is allowed"),
        ({"labels": {f"k{i}": "" for i in range(33)}}, "labels", "has 33 labels; at most 32 are allowed"),
        ({"labels": {"Key": ""}}, "labels['Key']", "is 'Key'; a-z, 0-9"),
        ({"labels": {"": "x"}}, "labels['']", "is required: 1-63 characters"),
        ({"labels": {"k": "v" * 256}}, "labels['k']", "has 256 characters"),
        ({"labels": {"k": "\0"}}, "labels['k']", "NUL"),
        ({"metadata": {f"k{i}": "" for i in range(17)}}, "metadata", "has 17 entries; at most 16 are allowed"),
        ({"metadata": {"grpc-timeout": "1"}}, "metadata['grpc-timeout']", "is a reserved key"),
        ({"metadata": {"sagad-x": "1"}}, "metadata['sagad-x']", "is a reserved key"),
        ({"metadata": {"x-bin": "1"}}, "metadata['x-bin']", "is a reserved key"),
        ({"metadata": {"te": "trailers"}}, "metadata['te']", "is a reserved key"),
        ({"metadata": {"X": "1"}}, "metadata['X']", "is 'X'"),
        ({"metadata": {"x": "\u20ac"}}, "metadata['x']", "is '\\u20ac'; printable ASCII is allowed in a value"),
        ({"metadata": {"x": "v" * 1025}}, "metadata['x']", "has 1025 characters"),
        ({"input": {"json": "a\0b"}}, "input.json", "holds a NUL character, which cannot be stored, in 'a\\x00b'"),
        ({"input": {"json": {"a\0": 1}}}, "input.json", "holds a NUL character, which cannot be stored, in the key"),
        ({"input": {"json": {"a": [{"b": "\0"}]}}}, "input.json", "holds a NUL character"),
        ({"input": {"json": "x" * 262_144}}, "input", "has 262,152 bytes; at most 262,144 are allowed"),
        ({"input": {"data": "", "contentType": "x" * 101}}, "input.content_type", "has 101 characters"),
    ],
)
def test_a_fault_of_a_start_is_named(fields: dict[str, object], field: str, said: str) -> None:
    found = start_violations(start(**fields), ValidationLimits())
    assert [each.field for each in found] == [field]
    assert said in found[0].description


def test_every_fault_is_named_at_once() -> None:
    found = start_violations(
        start(namespace="N", sagaId="?", definitionId="x", version="1", labels={"K": "\0"}, timeout="0s"),
        ValidationLimits(),
    )
    fields = ["namespace", "saga_id", "definition_id", "version", "labels['K']", "labels['K']", "timeout"]
    assert [each.field for each in found] == fields


def test_an_error_carries_every_violation_and_says_them() -> None:
    checker = check()
    checker.saga_id("saga_id", "")
    checker.reason("reason", "", required=True)
    with pytest.raises(InvalidArgument) as caught:
        checker.raise_if_any()
    assert [each.field for each in caught.value.violations] == ["saga_id", "reason"]
    assert caught.value.reason == "INVALID_REQUEST"
    assert str(caught.value) == (
        "2 faults in the request: saga_id: is required: 1-128 characters; reason: is required: 1-500 characters"
    )


def test_a_request_without_fault_raises_nothing() -> None:
    check().raise_if_any()


def test_json_is_nested_at_most_24_levels() -> None:
    for in_objects in (False, True):
        assert json_fault(nested(MAX_JSON_DEPTH, in_objects=in_objects)) is None
        assert json_fault(nested(MAX_JSON_DEPTH + 1, in_objects=in_objects)) == "is nested deeper than 24 levels"


@pytest.mark.parametrize(("number", "said"), [(float("nan"), "holds nan"), (float("-inf"), "holds -inf")])
def test_json_has_no_nan_and_no_infinity(number: float, said: str) -> None:
    value = Value()
    value.list_value.values.add().number_value = number
    assert json_fault(value) == f"{said}, which is no JSON number"


def test_the_largest_list_or_map_is_counted() -> None:
    assert most_elements(json_format.ParseDict({"a": [1, 2, [1, 2, 3, 4]], "b": {}}, Value())) == 4
    assert most_elements(json_format.ParseDict({"a": 1, "b": 2, "c": [3]}, Value())) == 3
    assert most_elements(json_format.ParseDict("x", Value())) == 0


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=12,
)


@given(_JSON)
def test_json_is_accepted_exactly_where_it_can_be_stored(made: object) -> None:
    def build(value: Value, part: object) -> None:
        if isinstance(part, list):
            value.list_value.SetInParent()
            for child in part:
                build(value.list_value.values.add(), child)
        elif isinstance(part, dict):
            value.struct_value.SetInParent()
            for key, child in part.items():
                build(value.struct_value.fields[key], child)
        elif isinstance(part, float):
            value.number_value = part
        else:
            json_format.ParseDict(part, value)

    value = Value()
    build(value, made)
    try:
        storable = "\\u0000" not in json_format.MessageToJson(value)
    except ValueError:  # NaN or an infinity
        storable = False
    assert (json_fault(value) is None) == storable


def test_a_page_has_bounds() -> None:
    checker = check()
    assert checker.page(0, "")
    assert checker.page(1000, "token")
    assert not checker.page(-1, "")
    assert not checker.page(1001, "")
    assert not checker.page(0, "a\0")
    assert [each.field for each in checker.violations] == ["page_size", "page_size", "page_token"]


def test_a_reason_may_be_required() -> None:
    checker = check()
    assert checker.reason("reason", "", required=False)
    assert checker.reason("reason", "x" * 500, required=True)
    assert not checker.reason("reason", "", required=True)
    assert not checker.reason("reason", "x" * 501, required=False)


def test_a_revision_is_at_least_1() -> None:
    checker = check()
    assert checker.revision("revision", 1)
    assert not checker.revision("revision", 0)
    assert checker.violations == [
        Violation("revision", "is 0; give the saga's revision as you have seen it, 1 or more")
    ]


def test_an_enum_has_only_its_values() -> None:
    checker = check()
    assert checker.enum("view", saga_pb2.SAGA_VIEW_UNSPECIFIED, saga_pb2.SagaView.DESCRIPTOR)
    assert not checker.enum("view", 9, saga_pb2.SagaView.DESCRIPTOR)
    assert not checker.enum("view", 0, saga_pb2.SagaView.DESCRIPTOR, required=True)
    needed = "one of SAGA_VIEW_BASIC, SAGA_VIEW_FULL is needed"
    assert [each.description for each in checker.violations] == [f"is 9; {needed}", f"is not given; {needed}"]


def test_an_empty_filter_is_valid() -> None:
    assert check().saga_filter("filter", saga_pb2.SagaFilter())


def test_every_fault_of_a_filter_is_named_at_once() -> None:
    saga_filter = saga_pb2.SagaFilter(
        definition_id="an order",
        version="1",
        labels={"K": "v"},
        create_time_min=Timestamp(seconds=10),
        create_time_max=Timestamp(seconds=10),
        end_time_min=Timestamp(seconds=2**40),
        end_time_max=Timestamp(nanos=-1),
    )
    saga_filter.states.extend([saga_pb2.SAGA_STATE_RUNNING, 99])  # type: ignore[list-item]
    saga_filter.parking_reasons.append(saga_pb2.PARKING_REASON_UNSPECIFIED)
    saga_filter.categories.extend([common_pb2.FAILURE_CATEGORY_TIMEOUT] * 8)
    checker = check()
    assert not checker.saga_filter("filter", saga_filter)
    assert [each.field for each in checker.violations] == [
        "filter.definition_id",
        "filter.version",
        "filter.labels['K']",
        "filter.states[1]",
        "filter.parking_reasons[0]",
        "filter.categories",
        "filter.create_time_max",
        "filter.end_time_min",
        "filter.end_time_max",
    ]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_no_timeout_breaks_the_check(seconds: int, nanos: int) -> None:
    found = start_violations(
        saga_service_pb2.StartSagaRequest(definition_id="order", timeout=Duration(seconds=seconds, nanos=nanos)),
        ValidationLimits(),
    )
    assert len(found) <= 1


def test_metadata_fits_into_a_grpc_header() -> None:
    checker = RequestChecker(ValidationLimits())
    checker.metadata("metadata", {f"key-{i}": "x" * 500 for i in range(9)})
    assert [v.field for v in checker.violations] == ["metadata"]
    assert "4096" in checker.violations[0].description
