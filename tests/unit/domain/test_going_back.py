"""Compensation: its order, what it waits for, and where it parks."""

import pytest
from support.definitions import definition, pivot, retriable, step
from support.play import TIMED_OUT, Play, code, refused

from sagad_server.domain.errors import FailedPrecondition
from sagad_server.domain.inputs import Compensate, Pending, Success
from sagad_server.domain.states import FailureCategory, ParkingReason, SagaState, StepState


def test_compensations_run_in_reverse() -> None:
    play = Play(definition(step("one"), step("two"), step("three")))
    play.succeed("one", "two")
    play.answer("three", refused())
    play.succeed("two", "one")
    assert play.called == ["one", "two", "three", "-two", "-one"]
    assert play.state is SagaState.COMPENSATED


def test_a_compensation_waits_for_all_its_transitive_dependants() -> None:
    play = Play(
        definition(step("root"), step("mid", "root"), step("leaf", "mid"), step("other", "root"), step("bad", "other"))
    )
    play.succeed("root", "mid", "leaf", "other")
    play.answer("bad", refused())
    assert set(play.called[-2:]) == {"-leaf", "-other"}
    play.succeed("other", "leaf")
    assert play.called[-1] == "-mid"
    play.succeed("mid")
    assert play.called[-1] == "-root"


def test_in_flight_attempts_are_awaited_when_compensation_begins() -> None:
    play = Play(definition(step("left"), step("right"), step("end", "left", "right")))
    play.answer("left", refused())
    assert play.state is SagaState.COMPENSATING
    assert play.states()["right"] is StepState.RUNNING
    play.succeed("right")
    assert play.called[-1] == "-right"


def test_an_awaited_attempt_that_ends_ambiguous_gets_no_retry_and_is_compensated() -> None:
    play = Play(definition(step("left"), step("right"), step("end", "left", "right")))
    play.answer("left", refused())
    play.answer("right", TIMED_OUT)
    assert play.called[-1] == "-right"


def test_a_sibling_in_back_off_gets_no_further_attempt() -> None:
    play = Play(definition(step("left"), step("right"), step("end", "left", "right")))
    play.answer("right", refused(retryable=True))
    play.answer("left", refused())
    assert play.states()["right"] is StepState.REFUSED
    assert play.state is SagaState.COMPENSATED


def test_a_pending_sibling_is_given_up_at_once_and_counts_as_ambiguous() -> None:
    play = Play(definition(step("left"), step("right"), step("end", "left", "right")))
    play.pend("right")
    play.answer("left", refused())
    assert play.called[-1] == "-right"
    assert play.step("right").may_have_happened


def test_an_answer_of_pending_after_the_turn_counts_as_ambiguous() -> None:
    play = Play(definition(step("left"), step("right"), step("end", "left", "right")))
    play.answer("left", refused())
    play.answer("right", Pending())
    assert play.called[-1] == "-right"


def test_a_parked_compensation_blocks_only_its_ancestors() -> None:
    play = Play(definition(step("root"), step("left", "root"), step("right", "root"), step("bad", "left", "right")))
    play.succeed("root", "left", "right")
    play.answer("bad", refused())
    play.answer("left", refused())
    assert play.state is SagaState.COMPENSATING
    assert play.step("left").parking_reason is ParkingReason.COMPENSATION_REFUSED
    play.succeed("right")
    assert play.state is SagaState.PARKED
    assert play.states()["root"] is StepState.SUCCEEDED
    assert play.step("left").failure is not None
    assert play.step("left").failure.category is FailureCategory.COMPENSATION


@pytest.mark.parametrize("name", ["UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"])
def test_for_compensations_faults_of_the_deployment_never_count_as_an_answer(name: str) -> None:
    play = Play(definition(step("one"), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    play.answer("one", code(name))
    assert play.states()["one"] is StepState.COMPENSATION_BACKING_OFF


def test_a_compensation_is_retried_for_retry_for_and_then_parks() -> None:
    play = Play(definition(step("one", retry={"retryFor": "60s"}), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    play.answer("one", code("UNAVAILABLE"), elapsed_ms=59_900)
    assert play.step("one").delay_ms <= 100, "the last pause ends with retry_for"
    play.wait_over("one")
    play.answer("one", code("UNAVAILABLE"), elapsed_ms=60_000)
    assert play.state is SagaState.PARKED
    assert play.step("one").parking_reason is ParkingReason.COMPENSATION_EXHAUSTED


def test_max_retries_does_not_bound_compensations() -> None:
    play = Play(definition(step("one", maxRetries=0), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    for _ in range(20):
        play.answer("one", code("UNAVAILABLE"))
        play.wait_over("one")
    assert play.states()["one"] is StepState.COMPENSATING


def test_a_read_only_step_has_nothing_to_undo() -> None:
    play = Play(definition(step("check", compensation=None, readOnly=True), step("two")))
    play.succeed("check")
    play.answer("two", refused())
    assert play.state is SagaState.COMPENSATED
    assert play.called == ["check", "two"]


def test_a_pending_compensation_is_completed() -> None:
    play = Play(definition(step("one"), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    play.pend("one")
    assert play.states()["one"] is StepState.COMPENSATION_AWAITING_COMPLETION
    play.wait_over("one")
    assert play.called[-2:] == ["-one", "-one"], "a poll"
    play.succeed("one")
    assert play.state is SagaState.COMPENSATED


def test_the_deadline_turns_the_saga_round() -> None:
    play = Play(definition(step("one"), step("two")), timeout_ms=1000)
    play.succeed("one")
    play.deadline()
    assert play.state is SagaState.COMPENSATING
    assert play.saga.failure is not None
    assert play.saga.failure.category is FailureCategory.TIMEOUT


def test_the_deadline_no_longer_applies_once_the_pivot_is_dispatched() -> None:
    play = Play(definition(step("one"), pivot("pay", "one"), retriable("ship", "pay")), timeout_ms=1000)
    play.succeed("one")
    assert play.deadline() is None
    play.succeed("pay")
    assert play.deadline() is None


def test_the_deadline_applies_again_once_the_pivot_is_definitely_refused() -> None:
    play = Play(definition(step("one"), pivot("pay", "one")), timeout_ms=1000)
    play.succeed("one")
    play.answer("pay", refused(retryable=True))
    assert play.deadline() is not None
    assert play.state is SagaState.COMPENSATING


# CompensateSaga in every state


def test_compensate_on_a_running_saga_stops_going_forward() -> None:
    play = Play(definition(step("one"), step("two")))
    play.compensate()
    play.succeed("one")
    assert play.called == ["one", "-one"]


def test_compensate_on_a_succeeded_saga_undoes_it_all() -> None:
    play = Play(definition(step("one"), step("two")))
    play.succeed("one", "two")
    play.compensate()
    assert play.state is SagaState.COMPENSATING
    play.succeed("two", "one")
    assert play.called[-2:] == ["-two", "-one"]
    assert play.state is SagaState.COMPENSATED


def test_compensate_changes_nothing_on_one_that_compensates_or_has() -> None:
    play = Play(definition(step("one"), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    assert play.compensate() is None
    play.succeed("one")
    assert play.compensate() is None


def test_compensate_is_refused_while_the_pivot_is_in_flight() -> None:
    play = Play(definition(step("one"), pivot("pay", "one")))
    play.succeed("one")
    with pytest.raises(FailedPrecondition) as caught:
        play.compensate()
    assert caught.value.reason == "PIVOT_IN_FLIGHT"


def test_compensate_is_refused_past_the_pivot() -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay")))
    play.succeed("pay")
    for _ in range(2):  # while it runs, and when it has succeeded
        with pytest.raises(FailedPrecondition) as caught:
            play.compensate()
        assert caught.value.reason == "PAST_PIVOT"
        if play.state is SagaState.RUNNING:
            play.succeed("ship")


def test_compensate_is_refused_on_a_parked_saga_with_an_unknown_pivot() -> None:
    play = Play(definition(pivot("pay", maxRetries=0)))
    play.answer("pay", TIMED_OUT)
    with pytest.raises(FailedPrecondition) as caught:
        play.compensate()
    assert caught.value.reason == "PIVOT_IN_FLIGHT"


def test_compensate_changes_nothing_where_compensation_is_parked() -> None:
    play = Play(definition(step("one"), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    play.answer("one", refused())
    assert play.state is SagaState.PARKED
    assert play.put(Compensate()) is None


def test_a_late_success_of_the_action_does_not_end_its_compensation() -> None:
    play = Play(definition(step("one", maxRetries=0)))
    play.answer("one", TIMED_OUT)
    event = play.answer("one", Success(None), attempt=9)
    assert event is None or not event.changes
    assert play.states()["one"] is StepState.COMPENSATING
