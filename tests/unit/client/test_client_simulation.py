"""Failure paths as a person sees them: in words, and as a flow chart."""

from typing import Any

from google.protobuf.json_format import ParseDict

from sagad.v1.definition_service_pb2 import Assumption, FaultKind, SimulatedPath
from sagad_client.terminal.mermaid import flow_chart
from sagad_client.terminal.simulation import assumptions_text, fault_verb, path_row

HELP = ["RetrySaga", "SkipStep"]


def path(calls: str, state: str, *faults: dict[str, Any], **fields: Any) -> SimulatedPath:
    """A path of calls such as `reserve charge*4 -reserve?`."""
    made = []
    for word in calls.split():
        name, _, attempts = word.strip("-?").partition("*")
        made.append(
            {
                "stepId": name,
                "compensation": word.startswith("-"),
                "attempts": int(attempts or 1),
                "outcomeUnknown": word.endswith("?"),
            }
        )
        for fault in faults:
            if (fault.get("stepId"), fault.get("compensation", False)) == (name, word.startswith("-")):
                made[-1]["fault"] = fault["kind"]
    return ParseDict({"calls": made, "faults": faults, "state": f"SAGA_STATE_{state}", **fields}, SimulatedPath())


def fault(kind: str, step_id: str = "", **fields: Any) -> dict[str, Any]:
    return {"kind": f"FAULT_KIND_{kind}", "stepId": step_id, **fields}


def parked(step_id: str, reason: str) -> dict[str, Any]:
    return {"parkings": [{"stepId": step_id, "reason": f"PARKING_REASON_{reason}", "allowedCalls": HELP}]}


CALM = path("reserve charge", "SUCCEEDED")
REFUSED = path("reserve charge -reserve", "COMPENSATED", fault("REFUSED", "charge"))
TIMED_OUT = path("reserve charge*4 -charge? -reserve", "COMPENSATED", fault("TIMED_OUT", "charge"), duration="90s")
STUCK = path(
    "reserve charge -reserve*2",
    "PARKED",
    fault("REFUSED", "charge"),
    fault("RETRIES_EXHAUSTED", "reserve", compensation=True),
    **parked("reserve", "COMPENSATION_EXHAUSTED"),
)
DEADLINE = path("reserve -reserve", "COMPENSATED", fault("DEADLINE_PASSED", revision=1, underWay=["reserve"]))
UNDONE = path("reserve charge -charge -reserve", "COMPENSATED", fault("COMPENSATE_CALLED", revision=3))
HELD_OFF = path(
    "reserve charge", "SUCCEEDED", fault("COMPENSATE_CALLED", underWay=["a", "charge"], heldOffBy="PIVOT_IN_FLIGHT")
)
EXPRESSION = path("reserve -reserve", "COMPENSATED", fault("EXPRESSION_FAILED", "charge"))


def row(path: SimulatedPath) -> list[str]:
    return [str(cell) for cell in path_row(path)]


def test_a_path_is_told_in_words() -> None:
    assert row(CALM) == ["nothing", "reserve, charge", "SUCCEEDED", "0s", ""]
    assert row(TIMED_OUT) == [
        "charge times out",
        "reserve, charge x4, undo charge (unknown outcome), undo reserve",
        "COMPENSATED",
        "1m 30s",
        "",
    ]
    assert row(STUCK) == [
        "charge is refused, then undo reserve fails at every attempt",
        "reserve, charge, undo reserve many times",
        "PARKED: reserve COMPENSATION_EXHAUSTED",
        "0s",
        "RetrySaga, SkipStep",
    ]
    assert row(DEADLINE)[0] == "the deadline passes while reserve runs"
    assert row(UNDONE)[0] == "CompensateSaga is called after the end"
    assert row(HELD_OFF)[0] == "CompensateSaga is called while a and charge run: no effect (PIVOT_IN_FLIGHT)"
    assert row(EXPRESSION)[0] == "charge has an expression that fails"


def test_what_the_example_itself_makes_fail_is_told_with_its_cause() -> None:
    failure = {"category": 1, "reason": "EXPRESSION_FAILED", "message": 'Key not found : "sku"', "stepId": "reserve"}
    assert row(path("", "COMPENSATED", failure=failure))[:3] == [
        "nothing",
        "",
        'COMPENSATED: reserve VALIDATION EXPRESSION_FAILED: Key not found : "sku"',
    ]


def test_everything_that_can_go_wrong_has_words() -> None:
    for kind in FaultKind.values():
        assert not kind or fault_verb(kind).islower() or "CompensateSaga" in fault_verb(kind)


def test_the_middle_of_many_calls_is_left_out() -> None:
    many = " ".join(f"s{number}" for number in range(30))
    assert row(path(many, "SUCCEEDED"))[1] == "s0, s1, s2, s3, s4, ... 20 more ..., s25, s26, s27, s28, s29"


def test_what_is_assumed_is_told_in_one_line() -> None:
    assumptions = [
        Assumption(step_id="check", field="when", missing=["input"]),
        Assumption(step_id="charge", field="input", missing=["input", "steps.reserve.output"]),
    ]
    assert assumptions_text(assumptions) == (
        "not evaluated: when of check, taken for true; input of charge"
        " (there is no example of input, steps.reserve.output)"
    )


def test_the_paths_share_what_they_have_in_common_in_the_flow_chart() -> None:
    chart = flow_chart([CALM, REFUSED, TIMED_OUT, STUCK, DEADLINE, HELD_OFF, EXPRESSION])
    assert chart.splitlines() == [
        "flowchart TD",
        "  n0([start])",
        '  n1["reserve"]',
        '  n2["charge"]',
        '  n3(["SUCCEEDED"])',
        "  n2 --> n3",
        '  n4["undo reserve"]',
        '  n5(["COMPENSATED"])',
        "  n4 --> n5",
        '  n6(["PARKED<br>reserve COMPENSATION_EXHAUSTED"])',
        '  n4 -->|"fails at every attempt"| n6',
        '  n2 -->|"is refused"| n4',
        '  n7["undo charge"]',
        "  n7 --> n4",
        '  n2 -->|"times out"| n7',
        "  n1 --> n2",
        '  n1 -->|"the deadline passes<br>charge has an expression that fails"| n4',
        "  n0 --> n1",
    ]


def test_what_is_undone_after_its_end_goes_on_from_there_in_the_flow_chart() -> None:
    assert flow_chart([CALM, UNDONE]).splitlines()[3:8] == [
        '  n2["charge"]',
        '  n3(["SUCCEEDED"])',
        '  n4["undo charge"]',
        '  n5["undo reserve"]',
        '  n6(["COMPENSATED"])',
    ]
    assert '  n3 -->|"CompensateSaga is called"| n4' in flow_chart([CALM, UNDONE])


def test_an_expression_of_the_first_step_fails_at_the_start_of_the_flow_chart() -> None:
    chart = flow_chart([path("", "COMPENSATED", fault("EXPRESSION_FAILED", "reserve"))])
    assert chart.splitlines()[-1] == '  n0 -->|"reserve has an expression that fails"| n1'
