"""How often, for how long, and after which pause a call is made again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.definitions import definition, pivot, retriable, step
from support.play import Play, code, refused

from sagad_server.domain.definition import compile_definition
from sagad_server.domain.retry import backoff_ms
from sagad_server.domain.states import ParkingReason, SagaState, StepState

RETRY = {"initialBackoff": "1s", "maxBackoff": "10s", "multiplier": 2}
NODE = compile_definition(definition(step("one", retry=RETRY))).steps[0]


@given(failures=st.integers(0, 10**6), random=st.floats(0, 1, exclude_max=True))
def test_the_back_off_is_exponential_capped_and_fully_jittered(failures: int, random: float) -> None:
    bound = min(10_000, 1000 * 2 ** min(failures, 20))
    assert backoff_ms(NODE, failures, random) == max(1, int(random * bound))


@pytest.mark.parametrize(("wish_ms", "pause_ms"), [(0, 500), (400, 500), (7_000, 7_000), (10**9, 10_000)])
def test_retry_after_is_obeyed_up_to_the_cap(wish_ms: int, pause_ms: int) -> None:
    play = Play(definition(step("one", retry=RETRY)))
    play.answer("one", refused(retryable=True, retry_after_ms=wish_ms))
    assert play.step("one").delay_ms == pause_ms


@pytest.mark.parametrize("kind", ["compensatable", "pivot"])
def test_max_retries_bounds_compensatable_steps_and_the_pivot(kind: str) -> None:
    play = Play(definition(step("act", maxRetries=2) if kind == "compensatable" else pivot("act", maxRetries=2)))
    for _ in range(2):
        play.answer("act", code("UNAVAILABLE"))
        play.wait_over("act")
    assert play.step("act").attempt == 3
    play.answer("act", code("UNAVAILABLE"))
    assert play.state is (SagaState.COMPENSATING if kind == "compensatable" else SagaState.PARKED)


@pytest.mark.parametrize("name", ["UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"])
def test_for_retriable_steps_faults_of_the_deployment_never_count_as_an_answer(name: str) -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay", maxRetries=0)))
    play.succeed("pay")
    play.answer("ship", code(name))
    assert play.states()["ship"] is StepState.BACKING_OFF


def test_a_failure_that_is_not_retryable_parks_a_retriable_step_at_once() -> None:
    play = Play(definition(pivot("pay"), retriable("ship", "pay")))
    play.succeed("pay")
    play.answer("ship", refused())
    assert play.step("ship").parking_reason is ParkingReason.STEP_REFUSED


def test_a_skipped_pivot_is_the_point_of_no_return() -> None:
    skipped = pivot("pay", "one", when="input.pays")
    play = Play(definition(step("one"), skipped, retriable("ship", "pay")), {"pays": False}, timeout_ms=1000)
    play.succeed("one")
    assert play.states()["pay"] is StepState.SKIPPED
    assert play.deadline() is None
    play.answer("ship", refused())
    assert play.state is SagaState.PARKED, "nothing turns round any more"


def test_compensations_that_do_not_depend_on_each_other_run_side_by_side() -> None:
    play = Play(definition(step("left"), step("right"), step("end", "left", "right")))
    play.succeed("left", "right")
    play.answer("end", refused())
    assert {play.states()["left"], play.states()["right"]} == {StepState.COMPENSATING}
