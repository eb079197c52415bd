"""sagactl definition explore and lint against a real sagad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.recipes import recipe, step
from support.sagactl import Result, Sagactl

from sagad_client import Client
from sagad_client.errors import NotFound
from sagad_client.payloads import to_payload

PIVOT = {"kind": "STEP_KIND_PIVOT", "compensation": None}
RETRIABLE = {"kind": "STEP_KIND_RETRIABLE", "compensation": None}
ORDER = {
    **recipe("order", step("reserve"), step("pay", **PIVOT), step("ship", **RETRIABLE, when="input.home")),
    "timeout": "5m",
}


@pytest.fixture
def sagactl(sagad: Any) -> Sagactl:
    return Sagactl(sagad.address)


@pytest.fixture
def order(tmp_path: Path) -> str:
    file = tmp_path / "order.yaml"
    file.write_text(yaml.safe_dump(ORDER))
    return str(file)


async def explore(sagactl: Sagactl, *arguments: str, stdin: str = "") -> Result:
    return await sagactl("definition", "explore", *arguments, stdin=stdin)


async def test_every_failure_is_shown_with_its_calls_and_its_end(sagactl: Sagactl, order: str) -> None:
    result = await explore(sagactl, order)
    assert result.code == 0, result.err
    header, *rows = result.lines
    assert header == ["WHAT GOES WRONG", "CALLS", "END", "TAKES", "WHAT HELPS"]
    assert [row[:3] for row in rows[:3]] == [
        ["nothing", "reserve, pay, ship", "SUCCEEDED"],
        ["reserve is refused", "reserve", "COMPENSATED"],
        ["reserve times out", "reserve x4, undo reserve (unknown outcome)", "COMPENSATED"],
    ]
    pay = next(row for row in rows if row[0] == "pay times out")
    assert pay[1:3] == ["reserve, pay x4", "PARKED: pay PIVOT_OUTCOME_UNKNOWN"]
    assert pay[4] == "RetrySaga, SkipStep, CompleteStep, AbandonSaga"
    assert result.err == (
        "not evaluated: when of ship, taken for true (there is no example of input): see --input and --outputs\n"
    )


async def test_with_an_example_expressions_are_evaluated(sagactl: Sagactl, order: str) -> None:
    result = await explore(sagactl, order, "--input", '{"home": false}', "-o", "json")
    assert (result.code, result.err) == (0, "")
    calm = result.json["paths"][0]
    assert [call["stepId"] for call in calm["calls"]] == ["reserve", "pay"]
    assert calm["state"] == "SAGA_STATE_SUCCEEDED"
    assert "assumptions" not in result.json


async def test_outputs_are_examples_too(sagactl: Sagactl) -> None:
    reader = recipe("order", step("reserve"), step("charge", when="steps.reserve.output.ok"))
    arguments = ("-", "--outputs", '{"reserve": {"ok": false}}', "-o", "json")
    result = await explore(sagactl, *arguments, stdin=yaml.safe_dump(reader))
    assert [call["stepId"] for call in result.json["paths"][0]["calls"]] == ["reserve"]


async def test_the_paths_are_drawn_as_a_flow_chart(sagactl: Sagactl, order: str) -> None:
    result = await explore(sagactl, order, "-o", "mermaid")
    lines = result.out.splitlines()
    assert lines[:2] == ["flowchart TD", "  n0([start])"]
    assert '  n1["reserve"]' in lines
    assert any("PARKED<br>ship STEP_REFUSED" in line for line in lines)


async def test_fewer_paths_may_be_asked_for(sagactl: Sagactl, order: str) -> None:
    result = await explore(sagactl, order, "--max-paths", "3")
    assert len(result.lines) == 4
    assert result.err.splitlines()[-1].startswith("3 paths are shown, and ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["definition", "explore", "{order}", "--input", "{"], "--input is no JSON"),
        (["definition", "explore", "{order}", "--outputs", "[1]"], "--outputs must be an object by step id"),
        (["definition", "explore", "{order}", "--max-paths", "0"], "Must be >= 1"),
        (["definition", "explore", "/nowhere"], "/nowhere: cannot be read"),
        (["definition", "list", "-o", "mermaid"], "-o mermaid draws what sagactl definition explore finds"),
    ],
)
async def test_a_wrong_argument_ends_with_2(sagactl: Sagactl, order: str, arguments: list[str], message: str) -> None:
    result = await sagactl(*(argument.replace("{order}", order) for argument in arguments))
    assert (result.code, result.out) == (2, "")
    assert message in result.err


async def test_a_file_of_two_definitions_is_too_much_to_explore(sagactl: Sagactl) -> None:
    result = await explore(sagactl, "-", stdin=yaml.safe_dump_all([ORDER, ORDER]))
    assert result.code == 2
    assert "- holds 2 definitions; explore shows one" in result.err


async def test_faults_are_told_as_when_it_is_applied(sagactl: Sagactl) -> None:
    bad = {**ORDER, "version": "one"}
    for command in ("explore", "lint"):
        result = await sagactl("definition", command, "-", stdin=yaml.safe_dump(bad))
        assert result.code == 1
        assert "definition.version: is 'one'" in result.err


@pytest.mark.parametrize("command", ["explore", "lint"])
async def test_without_a_sagad_it_is_said_that_one_is_needed(order: str, command: str) -> None:
    result = await Sagactl("127.0.0.1:1")("definition", command, order)
    assert (result.code, result.out) == (3, "")
    first, second, *_ = result.err.splitlines()
    assert first == "The rules are sagad's own: this needs a running one to ask, such as `sagad dev`."
    assert second.startswith("UNAVAILABLE: ")


async def test_lint_finds_nothing_in_a_harmless_definition(sagactl: Sagactl, order: str) -> None:
    result = await sagactl("definition", "lint", order)
    assert (result.code, result.out, result.err) == (0, "DEFINITION\tWARNING\tWHERE\tWHAT AND WHAT TO DO\n", "")


async def test_lint_shows_the_dangers_of_all_files_and_ends_with_1(
    sagactl: Sagactl, order: str, tmp_path: Path
) -> None:
    endless, hasty = recipe("endless", step("ask")), {**ORDER, "definition_id": "hasty"}
    hasty["steps"] = [step("reserve", retry={"retry_for": "30s"})]
    file = tmp_path / "more.json"
    file.write_text(json.dumps([endless, hasty]))
    result = await sagactl("definition", "lint", order, str(file))
    assert (result.code, result.err) == (1, "")
    assert [line[:3] for line in result.lines[1:]] == [
        ["endless", "UNBOUNDED_WAIT", "definition.timeout"],
        ["hasty", "SHORT_RETRY_FOR", "definition.steps[0].retry.retry_for"],
    ]
    listed = (await sagactl("definition", "lint", order, str(file), "-o", "json")).json
    assert [(one["definitionId"], len(one["warnings"])) for one in listed] == [
        ("order", 0),
        ("endless", 1),
        ("hasty", 1),
    ]
    assert listed[1]["warnings"][0]["code"] == "UNBOUNDED_WAIT"


async def test_apply_warns_of_dangers(sagactl: Sagactl) -> None:
    result = await sagactl("definition", "apply", "-", stdin=yaml.safe_dump(recipe("endless", step("ask"))))
    assert result.code == 0
    assert result.err.startswith("endless 1.0.0: warning: UNBOUNDED_WAIT definition.timeout: is not set")


async def test_the_client_walks_what_is_stored_too(sagactl: Sagactl, order: str) -> None:
    assert (await sagactl("definition", "apply", order)).code == 0
    async with Client(sagactl.address) as client:
        for version in ("", "1.0.0"):
            response = await client.definitions.simulate(
                "order", version, input=to_payload({"home": False}), outputs={"pay": {"id": 1}, "reserve": None}
            )
            assert [call.step_id for call in response.paths[0].calls] == ["reserve", "pay"]
        with pytest.raises(NotFound):
            await client.definitions.simulate("nothing")
