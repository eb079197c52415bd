"""Expressions are evaluated with the example; where it does not say enough, that is said."""

from support.definitions import definition, pivot, retriable, step
from support.paths import Explored

from sagad_server.domain.states import SagaState

CHECKED = definition(
    step("reserve"),
    step("check", when="input.amount > 10.0"),
    step("charge", input='{"id": steps.reserve.output.id, "amount": input.amount}'),
)


def assumed(explored: Explored) -> dict[str, tuple[str, ...]]:
    steps = explored.definition.steps
    return {f"{steps[one.step].step_id}.{one.field}": one.missing for one in explored.exploration.assumptions}


def test_what_the_example_does_not_give_is_assumed_and_said() -> None:
    explored = Explored(CHECKED)
    assert assumed(explored) == {
        "check.when": ("input",),
        "charge.input": ("input", "steps.reserve.output"),
    }
    assert explored.calls("calm") == "reserve check charge"


def test_an_example_that_says_enough_leaves_nothing_to_assume() -> None:
    explored = Explored(CHECKED, {"amount": 5}, {"reserve": {"id": "r"}})
    assert assumed(explored) == {}
    assert explored.calls("calm") == "reserve charge"
    assert not any("check" in name for name in explored.by_fault)


def test_an_expression_that_fails_on_the_example_fails_in_every_path() -> None:
    explored = Explored(CHECKED, {"total": 5}, {"reserve": {"id": "r"}})
    calm = explored["calm"]
    assert calm.failure is not None
    assert (calm.state, calm.failure.reason) == (SagaState.COMPENSATED, "EXPRESSION_FAILED")
    assert explored.calls("calm") == "reserve -reserve"
    assert explored.parked("-reserve REFUSED") == {"reserve": "COMPENSATION_REFUSED"}


def test_each_expression_may_fail_whether_evaluated_or_not() -> None:
    for explored in (Explored(CHECKED), Explored(CHECKED, {"amount": 20}, {"reserve": {"id": "r"}})):
        assert explored.calls("check EXPRESSION_FAILED") == "reserve -reserve"
        assert explored.calls("charge EXPRESSION_FAILED") == "reserve check -check -reserve"
        assert "reserve EXPRESSION_FAILED" not in explored.by_fault


def test_the_first_step_may_have_the_expression_that_fails() -> None:
    explored = Explored(definition(step("only", input="input.x")))
    assert explored.calls("only EXPRESSION_FAILED") == ""
    assert explored["only EXPRESSION_FAILED"].state is SagaState.COMPENSATED


def test_an_expression_that_fails_after_the_pivot_parks() -> None:
    explored = Explored(definition(pivot("charge"), retriable("ship", input="input.address")))
    assert explored.parked("ship EXPRESSION_FAILED") == {"ship": "EXPRESSION_FAILED"}
    assert explored["ship EXPRESSION_FAILED"].parkings[0].allowed_calls == ("RetrySaga", "SkipStep", "AbandonSaga")


def test_a_step_that_is_switched_off_has_no_output_to_be_missed() -> None:
    message = definition(step("off", active=False), step("act", when="has(steps.off.output)"), step("last"))
    explored = Explored(message)
    assert assumed(explored) == {}
    assert explored.calls("calm") == "last"
