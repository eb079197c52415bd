"""The switch that makes examples fail on purpose."""

from typing import Any

import pytest

from sagad.v1 import participant_service_pb2 as pb
from sagad_examples.faults import LABEL, Fault, Faults, Mode
from sagad_participant import Action, Compensation
from sagad_participant.calls import Context

CONTEXT = Context(None, {}, None)


def charge(attempt: int = 1, label: str | None = None, key: str = "k") -> Action:
    labels = {} if label is None else {LABEL: label}
    request = pb.StepRequest(action="charge_card", attempt=attempt, labels=labels, idempotency_key=key)
    return Action(request, CONTEXT)


def refund() -> Compensation:
    return Compensation(pb.CompensateRequest(action="charge_card", compensation="refund_card"), CONTEXT, success=None)


def test_faults_are_written_as_target_mode_and_number() -> None:
    assert Fault.parse("payment=refuse") == Fault("payment", Mode.REFUSE)
    assert Fault.parse("charge_card=die:2") == Fault("charge_card", Mode.DIE, first=2)
    assert Fault.parse("payment=timeout:every=3") == Fault("payment", Mode.TIMEOUT, every=3)


@pytest.mark.parametrize(
    "text", ["", "payment", "payment=", "=die", "payment=explode", "payment=die:0", "payment=die:x"]
)
def test_what_is_no_fault_is_refused_with_the_syntax(text: str) -> None:
    with pytest.raises(ValueError, match="is no fault: write TARGET=MODE"):
        Fault.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("payment=refuse", "rrrr"),
        ("payment=refuse:2", "rr.."),
        ("payment=refuse:every=2", ".r.r"),
        ("charge_card=refuse:1", "r..."),
        ("inventory=refuse", "...."),
    ],
)
def test_a_switch_strikes_the_calls_it_names(text: str, expected: str) -> None:
    faults = Faults([Fault.parse(text)])
    struck = ["r" if faults.of("payment", charge()) else "." for _ in range(4)]
    assert "".join(struck) == expected


def test_a_label_strikes_its_saga_and_counts_attempts() -> None:
    faults = Faults()
    assert faults.of("payment", charge(1, "payment=timeout:1")) is Mode.TIMEOUT
    assert faults.of("payment", charge(2, "payment=timeout:1")) is None
    assert faults.of("payment", charge(1, "inventory=timeout")) is None
    assert faults.of("payment", charge(1, "nonsense")) is None


def test_compensations_are_struck_by_their_own_name_only() -> None:
    assert Faults([Fault.parse("payment=refuse")]).of("payment", refund()) is None
    assert Faults([Fault.parse("refund_card=refuse")]).of("payment", refund()) is Mode.REFUSE


@pytest.mark.parametrize(("mode", "after"), [("die", Mode.DIE), ("late", Mode.LATE), ("refuse", None)])
def test_some_faults_strike_once_after_the_effect(mode: str, after: Any) -> None:
    faults = Faults([Fault.parse(f"payment={mode}")])
    faults.of("payment", charge(key="a"))
    assert faults.after_answer("b") is None
    assert faults.after_answer("a") is after
    assert faults.after_answer("a") is None
