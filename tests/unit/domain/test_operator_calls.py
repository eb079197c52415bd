"""Parking, and each call that an operator has."""

import pytest
from support.definitions import definition, pivot, retriable, step
from support.play import TIMED_OUT, Play, code, payload, refused

from sagad_server.domain.errors import Aborted, FailedPrecondition, InvalidArgument
from sagad_server.domain.inputs import Abandon, Retry, Skip
from sagad_server.domain.saga import parkings
from sagad_server.domain.states import ParkingReason, SagaState, StepState


def parked_retriable(outcome: object = None) -> Play:
    play = Play(definition(pivot("pay"), retriable("ship", "pay")))
    play.succeed("pay")
    play.answer("ship", refused())
    assert play.state is SagaState.PARKED
    return play


def unknown_pivot() -> Play:
    play = Play(definition(step("one"), pivot("pay", "one", maxRetries=0), retriable("ship", "pay")))
    play.succeed("one")
    play.answer("pay", TIMED_OUT)
    return play


def parked_compensation() -> Play:
    play = Play(definition(step("one"), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    play.answer("one", refused())
    return play


def revision(play: Play) -> int:
    return play.saga.revision


def test_a_parking_names_reason_step_direction_and_calls() -> None:
    play = parked_retriable()
    (parking,) = parkings(play.saga)
    assert parking.reason is ParkingReason.STEP_REFUSED
    assert parking.step == 1
    assert parking.resumes_as is SagaState.RUNNING
    assert set(parking.allowed_calls) == {"RetrySaga", "SkipStep", "AbandonSaga", "CompleteStep"}


@pytest.mark.parametrize("name", ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "OUT_OF_RANGE", "DATA_LOSS"])
def test_a_retriable_step_parks_on_an_answer_that_is_final(name: str) -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay")))
    play.succeed("pay")
    play.answer("ship", code(name))
    if name == "DATA_LOSS":
        assert play.state is SagaState.RUNNING, "ambiguous is no answer: what must succeed goes on"
    else:
        assert play.step("ship").parking_reason is ParkingReason.STEP_REFUSED


def test_a_retriable_step_is_retried_for_retry_for_and_then_parks() -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay", maxRetries=0, retry={"retryFor": "10s"})))
    play.succeed("pay")
    play.answer("ship", code("UNAVAILABLE"), elapsed_ms=1)
    assert play.states()["ship"] is StepState.BACKING_OFF
    play.wait_over("ship")
    play.answer("ship", code("UNAVAILABLE"), elapsed_ms=10_000)
    assert play.step("ship").parking_reason is ParkingReason.STEP_EXHAUSTED


def test_the_operators_calls_take_the_expected_revision() -> None:
    play = parked_retriable()
    seen = revision(play) - 1
    for what in (Retry(seen), Skip(seen, 1), Abandon(seen)):
        with pytest.raises(Aborted):
            play.put(what)


def test_retry_gives_a_new_key_where_the_step_cannot_have_happened() -> None:
    play = parked_retriable()
    play.put(Retry(revision(play)))
    assert play.step("ship").generation == 2
    assert play.step("ship").attempt == 1
    play.succeed("ship")
    assert play.state is SagaState.SUCCEEDED


def test_retry_keeps_the_key_where_the_step_may_have_happened() -> None:
    play = unknown_pivot()
    play.put(Retry(revision(play)))
    assert play.step("pay").generation == 1
    play.succeed("pay", "ship")
    assert play.state is SagaState.SUCCEEDED


def test_retry_takes_a_changed_input_only_with_a_new_generation() -> None:
    play = parked_retriable()
    play.put(Retry(revision(play), 1, payload({"to": "elsewhere"})))
    assert play.step("ship").input == payload({"to": "elsewhere"})
    play = unknown_pivot()
    with pytest.raises(FailedPrecondition) as caught:
        play.put(Retry(revision(play), 1, payload({})))
    assert caught.value.reason == "INPUT_FIXED"


def test_retry_of_a_compensation_keeps_the_key() -> None:
    play = parked_compensation()
    play.put(Retry(revision(play)))
    assert play.step("one").generation == 1
    play.succeed("one")
    assert play.state is SagaState.COMPENSATED


def test_retry_evaluates_an_expression_anew_unless_an_input_is_given() -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay", input="input.nothing")), input={})
    play.succeed("pay")
    play.put(Retry(revision(play)))
    assert play.state is SagaState.PARKED
    play.put(Retry(revision(play), 1, payload("given")))
    assert play.states()["ship"] is StepState.RUNNING


def test_retry_of_what_is_not_parked_is_refused() -> None:
    play = Play(definition(step("one")))
    with pytest.raises(FailedPrecondition) as caught:
        play.put(Retry(revision(play)))
    assert caught.value.reason == "NOT_PARKED"


def test_skip_on_a_retriable_step_counts_as_succeeded_with_the_given_output() -> None:
    play = parked_retriable()
    play.put(Skip(revision(play), 1, output=payload({"by": "hand"})))
    assert play.state is SagaState.SUCCEEDED
    assert play.step("ship").output == payload({"by": "hand"})


def test_skip_on_a_compensation_counts_as_compensated_by_hand() -> None:
    play = parked_compensation()
    play.put(Skip(revision(play), 0))
    assert play.states()["one"] is StepState.COMPENSATED
    assert play.state is SagaState.COMPENSATED


def test_skip_on_an_unknown_pivot_needs_an_outcome() -> None:
    play = unknown_pivot()
    with pytest.raises(InvalidArgument):
        play.put(Skip(revision(play), 1))
    play.put(Skip(revision(play), 1, executed=True))
    assert play.called[-1] == "ship"


def test_skip_on_an_unknown_pivot_that_was_not_executed_compensates() -> None:
    play = unknown_pivot()
    play.put(Skip(revision(play), 1, executed=False, reason="the bank says no"))
    assert play.states()["pay"] is StepState.REFUSED
    assert play.called[-1] == "-one"


def test_skip_of_what_is_not_parked_is_refused() -> None:
    play = parked_retriable()
    with pytest.raises(FailedPrecondition):
        play.put(Skip(revision(play), 0))


def test_abandon_ends_a_parked_saga_and_calls_nobody() -> None:
    play = parked_compensation()
    called = list(play.called)
    play.put(Abandon(revision(play), "gone bankrupt"))
    assert play.state is SagaState.ABANDONED
    assert play.called == called
    with pytest.raises(FailedPrecondition) as caught:
        play.compensate()
    assert caught.value.reason == "ABANDONED"


def test_abandon_is_only_for_parked_sagas() -> None:
    play = Play(definition(step("one")))
    with pytest.raises(FailedPrecondition):
        play.put(Abandon(revision(play)))


def test_a_saga_parked_as_a_whole_goes_on_where_it_was() -> None:
    play = Play(definition(step("one"), step("two")))
    play.saga.state, play.saga.incident = SagaState.PARKED, ParkingReason.INTERNAL
    play.calls.clear()
    play.put(Retry(revision(play)))
    assert play.saga.incident is None
    assert play.step("one").may_have_happened
    play.succeed("one", "two")
    assert play.state is SagaState.SUCCEEDED


def test_a_saga_parked_as_a_whole_can_be_compensated_before_the_pivot() -> None:
    play = Play(definition(step("one"), step("two")))
    play.saga.state, play.saga.incident = SagaState.PARKED, ParkingReason.INTERNAL
    play.calls.clear()
    assert "CompensateSaga" in parkings(play.saga)[0].allowed_calls
    play.compensate()
    play.succeed("one")
    assert play.state is SagaState.COMPENSATED
