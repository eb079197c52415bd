"""Order, skips, expressions, and how a saga succeeds."""

from support.definitions import definition, pivot, retriable, step
from support.play import Play, refused

from sagad_server.domain.states import FailureCategory, ParkingReason, SagaState, StepState


def test_without_depends_on_the_listed_order_is_a_chain() -> None:
    play = Play(definition(step("reserve"), step("charge"), step("ship")))
    assert play.called == ["reserve"]
    play.succeed("reserve", "charge")
    assert play.called == ["reserve", "charge", "ship"]
    play.succeed("ship")
    assert play.state is SagaState.SUCCEEDED


def test_a_three_step_saga_makes_four_transitions() -> None:
    play = Play(definition(step("reserve"), step("charge"), step("ship")))
    play.succeed("reserve", "charge", "ship")
    assert [event.revision for event in play.events] == [1, 2, 3, 4]


def test_a_step_starts_when_all_it_depends_on_has_succeeded() -> None:
    play = Play(definition(step("left"), step("right"), step("join", "left", "right")))
    assert play.called == ["left", "right"]
    play.succeed("right")
    assert "join" not in play.called
    play.succeed("left")
    assert play.called[-1] == "join"


def test_a_false_condition_skips_the_step_and_its_dependants_run() -> None:
    play = Play(definition(step("gift", when="input.gift"), step("ship")), input={"gift": False})
    assert play.states() == {"gift": StepState.SKIPPED, "ship": StepState.RUNNING}
    assert play.events[0].revision == 1


def test_an_inactive_step_is_skipped_in_every_saga() -> None:
    play = Play(definition(step("gift", active=False), step("ship")))
    assert play.called == ["ship"]


def test_a_saga_whose_steps_are_all_skipped_succeeds_in_its_first_transition() -> None:
    play = Play(definition(step("gift", active=False)))
    assert play.state is SagaState.SUCCEEDED
    assert play.saga.revision == 1


def test_skips_propagate_against_the_listed_order() -> None:
    play = Play(definition(step("last", "first"), step("first", active=False)))
    assert play.called == ["last"]


def test_the_output_of_a_skipped_step_is_absent() -> None:
    charge = step("charge", input='{"gift": has(steps.gift.output)}')
    play = Play(definition(step("gift", active=False), charge))
    assert play.step("charge").input is not None
    assert play.step("charge").input.json.struct_value.fields["gift"].bool_value is False


def test_an_input_expression_reads_the_saga_and_the_steps_before() -> None:
    ship = step("ship", input='{"sku": input.sku, "parcel": steps.reserve.output.parcel}')
    play = Play(definition(step("reserve"), ship), input={"sku": "abc"})
    play.succeed("reserve", output={"parcel": "p-1"})
    given = play.step("ship").input
    assert given is not None
    assert dict(given.json.struct_value.items()) == {"sku": "abc", "parcel": "p-1"}


def test_expressions_are_evaluated_once_and_the_result_is_journaled_with_the_dispatch() -> None:
    ship = step("ship", input='{"sku": input.sku}')
    play = Play(definition(ship), input={"sku": "abc"})
    assert play.events[0].changes[0].input == play.step("ship").input
    play.answer("ship", refused(retryable=True))
    play.wait_over("ship")
    assert all(change.input is None for event in play.events[1:] for change in event.changes)


def test_an_expression_that_fails_before_the_pivot_is_a_definite_failure() -> None:
    ship = step("ship", input='{"sku": input.nothing}')
    play = Play(definition(step("reserve"), ship), input={"sku": "abc"})
    play.succeed("reserve")
    assert play.states() == {"reserve": StepState.COMPENSATING, "ship": StepState.REFUSED}
    assert play.saga.failure is not None
    assert play.saga.failure.category is FailureCategory.VALIDATION
    assert play.saga.failure.reason == "EXPRESSION_FAILED"


def test_an_expression_that_fails_after_the_pivot_parks() -> None:
    ship = retriable("ship", "charge", input='{"sku": input.nothing}')
    play = Play(definition(pivot("charge"), ship), input={"sku": "abc"})
    play.succeed("charge")
    assert play.state is SagaState.PARKED
    assert play.step("ship").parking_reason is ParkingReason.EXPRESSION_FAILED


def test_a_parked_step_does_not_hold_its_siblings_up() -> None:
    ship = retriable("ship", "charge", input="input.nothing")
    play = Play(definition(pivot("charge"), ship, retriable("mail", "charge")), input={})
    play.succeed("charge")
    assert play.state is SagaState.RUNNING
    play.succeed("mail")
    assert play.state is SagaState.PARKED
