"""Pending steps, and CompleteStep: early, late, twice, with another outcome."""

import pytest
from support.definitions import definition, pivot, retriable, step
from support.play import TIMED_OUT, Play, payload, refused

from sagad_server.domain.errors import FailedPrecondition
from sagad_server.domain.inputs import Pending, Success
from sagad_server.domain.states import Direction, ParkingReason, SagaState, StepState

DONE = Success(None)


def pending() -> Play:
    play = Play(definition(step("one", maxRetries=1), step("two")))
    play.pend("one")
    return play


def test_pending_starts_the_completion_timeout() -> None:
    play = Play(definition(step("one", completionTimeout="90s")))
    play.pend("one")
    assert play.step("one").state is StepState.AWAITING_COMPLETION
    assert play.step("one").delay_ms == 90_000


def test_complete_step_answers_a_pending_step() -> None:
    play = pending()
    play.complete("one", Success(payload({"id": 1})))
    assert play.called == ["one", "two"]
    assert play.step("one").output == payload({"id": 1})


def test_complete_step_may_overtake_the_reply() -> None:
    play = Play(definition(step("one"), step("two")))
    play.complete("one", DONE)
    assert play.called == ["one", "two"]
    assert play.answer("one", Pending()) is None, "the reply that was overtaken changes nothing"


def test_complete_step_is_accepted_while_the_step_backs_off() -> None:
    play = Play(definition(step("one"), step("two")))
    play.answer("one", TIMED_OUT)
    play.complete("one", DONE)
    assert play.states()["one"] is StepState.SUCCEEDED
    assert play.wait_over("one") is None


def test_the_same_outcome_again_is_ok() -> None:
    play = pending()
    play.complete("one", Success(payload(1)))
    assert play.complete("one", Success(payload(1))) is None
    play = pending()
    play.complete("one", refused("NO"))
    assert play.complete("one", refused("NO")) is None


@pytest.mark.parametrize("other", [Success(payload(2)), refused("NO")])
def test_another_outcome_conflicts(other: Success) -> None:
    play = pending()
    play.complete("one", Success(payload(1)))
    with pytest.raises(FailedPrecondition) as caught:
        play.complete("one", other)
    assert caught.value.reason == "OUTCOME_CONFLICT"


def test_a_success_after_a_refusal_conflicts() -> None:
    play = pending()
    play.complete("one", refused("NO"))
    with pytest.raises(FailedPrecondition) as caught:
        play.complete("one", DONE)
    assert caught.value.reason == "OUTCOME_CONFLICT"


def test_after_the_step_was_given_up_it_is_closed() -> None:
    play = pending()
    play.compensate()
    with pytest.raises(FailedPrecondition) as caught:
        play.complete("one", DONE)
    assert caught.value.reason == "STEP_CLOSED"


def test_an_older_generation_is_closed() -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay")))
    play.step("pay").generation = 2
    with pytest.raises(FailedPrecondition) as caught:
        play.complete("pay", DONE, generation=1)
    assert caught.value.reason == "STEP_CLOSED"


def test_when_the_time_is_over_the_step_is_called_again_as_a_poll() -> None:
    play = pending()
    key = play.saga.idempotency_key(0)
    play.wait_over("one")
    assert play.called == ["one", "one"]
    assert play.saga.idempotency_key(0) == key


def test_exhausted_polls_are_ambiguous() -> None:
    play = pending()
    play.wait_over("one")
    play.pend("one")
    play.wait_over("one")
    assert play.called[-1] == "-one"
    assert play.step("one").may_have_happened


def test_a_pending_pivot_that_is_exhausted_parks() -> None:
    play = Play(definition(pivot("pay", maxRetries=0)))
    play.pend("pay")
    play.wait_over("pay")
    assert play.step("pay").parking_reason is ParkingReason.PIVOT_OUTCOME_UNKNOWN
    play.complete("pay", DONE)
    assert play.state is SagaState.SUCCEEDED, "the answer that was missing settles what is parked"


def test_a_pending_retriable_step_is_polled_for_retry_for() -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay", maxRetries=0)))
    play.succeed("pay")
    play.pend("ship")
    play.wait_over("ship", elapsed_ms=1000)
    assert play.called[-1] == "ship"
    play.pend("ship")
    play.wait_over("ship", elapsed_ms=24 * 3_600_000)
    assert play.step("ship").parking_reason is ParkingReason.STEP_EXHAUSTED


def test_complete_step_answers_a_pending_compensation() -> None:
    play = Play(definition(step("one"), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    play.pend("one")
    play.complete("one", DONE, Direction.COMPENSATION)
    assert play.state is SagaState.COMPENSATED
    assert play.complete("one", DONE, Direction.COMPENSATION) is None
    with pytest.raises(FailedPrecondition) as caught:
        play.complete("one", refused(), Direction.COMPENSATION)
    assert caught.value.reason == "OUTCOME_CONFLICT"
