from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from sagad.v1.definition_pb2 import STEP_KIND_PIVOT
from sagad_client import DefinitionFileError, load_definitions, parse_definitions

ORDER = """
definition_id: order
version: "1.10.0"
name: Order
timeout: 1h30m
steps:
  - step_id: reserve
    participant: inventory
    depends_on: []
    timeout: 500ms
    retry: &patient {initialBackoff: 0.200s, max_backoff: 90s, multiplier: 2}
  - stepId: charge
    kind: STEP_KIND_PIVOT
    maxRetries: 0
    retry: *patient
"""


def faults_of(text: str, *, json: bool = False) -> list[tuple[int | None, str, str]]:
    with pytest.raises(DefinitionFileError) as caught:
        parse_definitions(text, source="orders", json=json)
    return [(fault.line, fault.path, fault.message) for fault in caught.value.faults]


def test_keys_may_be_snake_or_camel_and_durations_short() -> None:
    (definition,) = parse_definitions(ORDER)
    assert (definition.definition_id, definition.version) == ("order", "1.10.0")
    assert definition.timeout == Duration(seconds=5400)
    reserve, charge = definition.steps
    assert reserve.timeout == Duration(nanos=500_000_000)
    assert reserve.retry.initial_backoff == Duration(nanos=200_000_000)
    assert charge.kind == STEP_KIND_PIVOT
    assert charge.HasField("max_retries")
    assert charge.retry == reserve.retry
    assert not reserve.HasField("max_retries")


def test_a_file_may_hold_many_documents_and_lists(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("definition_id: a\n---\n- definition_id: b\n- definition_id: c\n---\n")
    assert [definition.definition_id for definition in load_definitions(file)] == ["a", "b", "c"]


def test_json_may_hold_what_yaml_cannot_read(tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text('{\n\t"definitionId": "a",\n\t"description": "\\ud83d\\ude00 \\/"\n}')
    (definition,) = load_definitions(file)
    assert definition.description == "😀 /"


def test_yaml_keeps_words_and_dates_as_the_strings_they_are() -> None:
    (definition,) = parse_definitions("definition_id: no\nname: 2026-01-31\ndescription: 1_000\nversion: on\n")
    assert definition.definition_id == "no"
    assert (definition.name, definition.description, definition.version) == ("2026-01-31", "1_000", "on")


def test_every_fault_is_named_at_once_by_line_and_path() -> None:
    text = """definition_id: order
version: 1.10
descripton: foo
timeout: 5m
timeout: 6m
steps:
  - step_id: reserve
    stepId: x
    timeout: 30
    kind: PIVOT
    depends_on: [1, a]
    read_only: yes
    retry: {retry_for: 1 day}
  - null
"""
    kinds = "STEP_KIND_COMPENSATABLE, STEP_KIND_PIVOT, STEP_KIND_RETRIABLE"
    hint = "write it as a number and a unit, such as 500ms, 90s, 5m, 1h30m or 30d"
    assert faults_of(text) == [
        (2, "version", "must be a string (put it in quotes), not the number 1.1"),
        (3, "descripton", "is no field of Definition: did you mean description?"),
        (5, "timeout", "is given twice"),
        (8, "steps[0].stepId", "is given twice, as step_id and as stepId"),
        (9, "steps[0].timeout", 'must be a duration with its unit, such as "30s", not the number 30'),
        (10, "steps[0].kind", f"must be one of {kinds}, not 'PIVOT'"),
        (11, "steps[0].depends_on[0]", "must be a string (put it in quotes), not the number 1"),
        (12, "steps[0].read_only", "must be true or false, not 'yes'"),
        (13, "steps[0].retry.retry_for", f"'1 day' is no duration: {hint}"),
        (14, "steps[1]", "must be a mapping of the fields of StepDefinition, not nothing"),
    ]


def test_faults_of_json_are_named_by_path() -> None:
    text = '[{"definition_id": "a", "definition_id": "b", "steps": [{"bogus": 1, "name": "\\ud800"}]}]'
    found = faults_of(text, json=True)
    assert [path for _, path, _ in found] == ["[0].definition_id", "[0].steps[0].bogus", "[0].steps[0].name"]
    assert found[0][2] == "is given twice"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "holds no definition"),
        ("---\n---\n", None, "holds no definition"),
        ("a: &a [*a]", 1, "is nested too deeply"),
        ("x: 1\ny: 'foo", 2, "is no YAML: found unexpected end of stream"),
        ("? [a]\n: b", 1, "has a key that is no string"),
        ("just text", 1, "must be a mapping of the fields of Definition, not 'just text'"),
        ("name: !!binary eA==", 1, "has the tag tag:yaml.org,2002:binary, which definitions do not know"),
    ],
)
def test_what_is_no_definition_file_is_refused(text: str, line: int | None, message: str) -> None:
    assert faults_of(text)[0] == (line, "name" if "binary" in text else "", message)


def test_the_error_reads_as_a_compilers_does(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text('{\n"a": ]')
    with pytest.raises(DefinitionFileError) as caught:
        load_definitions(file)
    assert str(caught.value) == f"{file}:2: is no JSON: Expecting value"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "order.yaml"
    file.write_bytes(b"name: \xff")
    with pytest.raises(DefinitionFileError, match="is not UTF-8 at byte 6"):
        load_definitions(file)
