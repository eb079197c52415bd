"""Rules in corners: calls that never left, deadlines that were held off, polls."""

import pytest
from support.definitions import definition, pivot, retriable, step
from support.play import Play, code, refused

from sagad_server.domain.decide import decide
from sagad_server.domain.inputs import Answered, NotSent, Pending, Retry
from sagad_server.domain.states import Direction, FailureCategory, ParkingReason, SagaState, StepState

DAY_MS = 24 * 3_600_000


def test_a_deadline_that_passed_while_the_pivot_was_queued_counts_again_if_the_pivot_was_not_sent() -> None:
    play = Play(definition(step("one"), pivot("pay", "one")), timeout_ms=1000)
    play.succeed("one")
    assert play.deadline() is None
    pay = play.index("pay")
    play.calls.remove((pay, Direction.ACTION))
    decision = decide(play.saga, Answered(pay, Direction.ACTION, 1, 1, NotSent("full"), 0, 0.5))
    assert decision is not None
    assert decision.rearm_deadline


def test_a_step_whose_call_never_leaves_says_why() -> None:
    play = Play(definition(step("one")))
    play.answer("one", NotSent("participant 'x' is not in the configuration"))
    failure = play.step("one").failure
    assert failure is not None
    assert (failure.reason, failure.step_id) == ("NOT_SENT", "one")
    assert "'x'" in failure.message


def test_a_call_that_cannot_leave_is_not_tried_again_at_once() -> None:
    play = Play(definition(step("one")))
    play.answer("one", NotSent("not in the configuration", retry_after_ms=20_000))
    assert play.step("one").delay_ms == 20_000


def test_a_participant_known_not_to_answer_exhausts_the_retries_of_a_step_without_making_it_ambiguous() -> None:
    play = Play(definition(step("one"), step("two", max_retries=2)))
    play.succeed("one")
    for _ in range(2):
        play.answer("two", NotSent("it does not answer", uses_retry=True))
        assert play.step("two").state is StepState.BACKING_OFF
        play.wait_over("two")
    play.answer("two", NotSent("it does not answer", uses_retry=True))
    assert play.step("two").state is StepState.REFUSED
    assert not play.step("two").may_have_happened
    assert play.saga.state is SagaState.COMPENSATING
    assert play.saga.failure is not None
    assert play.saga.failure.category is FailureCategory.RETRIES_EXHAUSTED


def test_a_retriable_step_whose_calls_never_leave_parks_after_retry_for() -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay")))
    play.succeed("pay")
    play.answer("ship", NotSent("gone"), elapsed_ms=DAY_MS - 1)
    assert play.step("ship").state is StepState.BACKING_OFF
    play.wait_over("ship")
    play.answer("ship", NotSent("gone"), elapsed_ms=DAY_MS)
    assert play.step("ship").parking_reason is ParkingReason.STEP_EXHAUSTED
    assert not play.step("ship").may_have_happened


def test_a_compensation_whose_calls_never_leave_parks_after_retry_for() -> None:
    play = Play(definition(step("one"), step("two")))
    play.succeed("one")
    play.answer("two", refused())
    since = play.step("one").since_revision
    play.answer("one", NotSent("gone"), elapsed_ms=1)
    play.wait_over("one")
    assert play.step("one").since_revision == since, "retry_for runs from the first dispatch"
    play.answer("one", NotSent("gone"), elapsed_ms=DAY_MS)
    assert play.step("one").parking_reason is ParkingReason.COMPENSATION_EXHAUSTED


@pytest.mark.parametrize("kind", ["retriable", "compensation"])
def test_a_pending_answer_that_does_not_come_is_asked_for_at_least_once(kind: str) -> None:
    """By default completion_timeout is as long as retry_for."""
    if kind == "retriable":
        play = Play(definition(pivot("pay"), retriable("ship", "pay")))
        play.succeed("pay")
        name = "ship"
    else:
        play = Play(definition(step("one"), step("two")))
        play.succeed("one")
        play.answer("two", refused())
        name = "one"
    play.answer(name, Pending())
    play.wait_over(name, elapsed_ms=DAY_MS)
    assert play.step(name).parking_reason is None
    assert len(play.calls) == 1
    play.answer(name, Pending())
    play.wait_over(name, elapsed_ms=2 * DAY_MS)
    assert play.step(name).parking_reason is not None


def test_a_pivot_that_parks_unknown_and_is_refused_for_good_on_retry_turns_round() -> None:
    play = Play(definition(step("one"), pivot("pay", "one", maxRetries=0)))
    play.succeed("one")
    play.answer("pay", code("UNAVAILABLE"))
    assert play.state is SagaState.PARKED
    play.put(Retry(play.saga.revision))
    play.answer("pay", refused(never_executed=True))
    assert play.called[-1] == "-one"


@pytest.mark.parametrize("end", [NotSent("full"), code("PERMISSION_DENIED")])
def test_what_was_accepted_as_pending_is_undone_even_if_the_poll_was_refused(end: NotSent) -> None:
    play = Play(definition(step("left"), step("right"), step("end", "left", "right")))
    play.pend("right")
    play.wait_over("right")
    play.answer("right", end)
    if play.state is SagaState.RUNNING:
        play.compensate()
    assert play.called[-1] == "-right"
