"""Design: sticky per step. What may have happened is undone, or parks the pivot."""

import pytest
from support.definitions import definition, pivot, step
from support.play import TIMED_OUT, Play, code, refused

from sagad_server.domain.inputs import Success
from sagad_server.domain.states import Direction, FailureCategory, ParkingReason, SagaState, StepState


def two() -> Play:
    play = Play(definition(step("reserve"), step("charge", maxRetries=1)))
    play.succeed("reserve")
    return play


@pytest.mark.parametrize(
    "name",
    [
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
        "OUT_OF_RANGE",
    ],
)
def test_a_definite_refusal_is_not_retried_and_not_compensated(name: str) -> None:
    play = two()
    play.answer("charge", code(name))
    assert play.states() == {"reserve": StepState.COMPENSATING, "charge": StepState.REFUSED}


@pytest.mark.parametrize("name", ["ALREADY_EXISTS", "DATA_LOSS"])
def test_final_but_ambiguous_codes_are_not_retried_and_compensated(name: str) -> None:
    play = two()
    play.answer("charge", code(name))
    assert play.called[-1] == "-charge"
    assert play.states()["reserve"] is StepState.SUCCEEDED


@pytest.mark.parametrize(
    "name", ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"]
)
def test_everything_else_is_ambiguous_and_retried(name: str) -> None:
    play = two()
    play.answer("charge", code(name))
    assert play.step("charge").may_have_happened
    assert play.step("charge").state is StepState.BACKING_OFF


def test_an_attempt_that_times_out_and_a_later_refusal_are_still_compensated() -> None:
    play = two()
    play.answer("charge", TIMED_OUT)
    play.wait_over("charge")
    play.answer("charge", refused())
    assert play.step("charge").state is StepState.COMPENSATING
    assert play.called[-1] == "-charge"


def test_never_executed_clears_the_ambiguity() -> None:
    play = two()
    play.answer("charge", TIMED_OUT)
    play.wait_over("charge")
    play.answer("charge", refused(never_executed=True))
    assert play.step("charge").state is StepState.REFUSED
    assert play.called[-1] == "-reserve"


def test_never_executed_with_retryable_is_read_as_not_retryable() -> None:
    play = two()
    play.answer("charge", refused(retryable=True, never_executed=True))
    assert play.step("charge").state is StepState.REFUSED


def test_what_was_in_flight_at_a_crash_may_have_happened() -> None:
    play = two()
    play.crash()
    play.answer("charge", refused())
    assert play.step("charge").state is StepState.COMPENSATING


def test_a_step_may_override_what_is_retried_but_not_what_is_ambiguous() -> None:
    retry = {"finalCodes": ["UNAVAILABLE"], "retryableCodes": ["NOT_FOUND"]}
    play = Play(definition(step("charge", retry=retry)))
    play.answer("charge", code("NOT_FOUND"))
    assert play.step("charge").state is StepState.BACKING_OFF
    assert not play.step("charge").may_have_happened
    play.wait_over("charge")
    play.answer("charge", code("UNAVAILABLE"))
    assert play.step("charge").state is StepState.COMPENSATING


def test_an_unknown_pivot_parks_the_saga() -> None:
    play = Play(definition(step("reserve"), pivot("charge", "reserve", maxRetries=0)))
    play.succeed("reserve")
    play.answer("charge", TIMED_OUT)
    assert play.state is SagaState.PARKED
    assert play.step("charge").parking_reason is ParkingReason.PIVOT_OUTCOME_UNKNOWN


def test_a_pivot_that_timed_out_once_and_is_then_refused_is_still_unknown() -> None:
    play = Play(definition(pivot("charge", maxRetries=1)))
    play.answer("charge", TIMED_OUT)
    play.wait_over("charge")
    play.answer("charge", refused())
    assert play.state is SagaState.PARKED


def test_a_refused_pivot_is_compensated() -> None:
    play = Play(definition(step("reserve"), pivot("charge", "reserve")))
    play.succeed("reserve")
    play.answer("charge", refused())
    assert play.state is SagaState.COMPENSATING
    play.succeed("reserve")
    assert play.state is SagaState.COMPENSATED


def test_the_failure_names_its_step_and_category() -> None:
    play = two()
    play.answer("charge", refused("CARD_DECLINED"))
    assert play.saga.failure is not None
    assert (play.saga.failure.step_id, play.saga.failure.reason) == ("charge", "CARD_DECLINED")
    assert play.saga.failure.category is FailureCategory.BUSINESS


def test_exhausted_retries_are_a_category_of_their_own() -> None:
    play = two()
    play.answer("charge", code("UNAVAILABLE"))
    play.wait_over("charge")
    play.answer("charge", code("UNAVAILABLE"))
    assert play.saga.failure is not None
    assert play.saga.failure.category is FailureCategory.RETRIES_EXHAUSTED
    assert "2 attempts" in play.saga.failure.message


def test_a_late_answer_changes_nothing_but_is_recorded() -> None:
    play = two()
    play.answer("charge", TIMED_OUT)
    before = play.states()
    event = play.answer("charge", refused("LATE"), attempt=1)
    assert play.states() == before
    assert event is not None
    assert "LATE" in event.reason


def test_a_call_that_never_left_is_no_attempt_and_uses_no_retry() -> None:
    play = two()
    play.not_sent("charge")
    step_ = play.step("charge")
    assert (step_.state, step_.attempt, step_.retries) == (StepState.BACKING_OFF, 0, 0)
    assert not step_.may_have_happened


def test_an_answer_to_the_action_is_not_taken_for_one_to_the_compensation() -> None:
    play = Play(definition(step("reserve"), step("charge", maxRetries=0)))
    play.succeed("reserve")
    play.answer("charge", TIMED_OUT)
    assert play.calls == [(1, Direction.COMPENSATION)]
    play.complete("charge", Success(None), Direction.COMPENSATION)
    assert play.step("charge").state is StepState.COMPENSATED
