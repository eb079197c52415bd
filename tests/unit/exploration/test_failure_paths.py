"""The failure paths of small definitions, as a person would work them out."""

from support.definitions import definition, pivot, retriable, step
from support.paths import Explored, fault_text

from sagad_server.domain.path import reading_order
from sagad_server.domain.states import ParkingReason, SagaState

DAY_MS = 86_400_000
CHAIN = definition(step("reserve", maxRetries=1), step("charge", maxRetries=1))
PIVOT = definition(step("reserve", maxRetries=0), pivot("charge", maxRetries=1), retriable("ship"))
FORK = definition(step("root"), step("left", "root", maxRetries=0), step("right", "root", maxRetries=0))


def test_every_path_of_a_chain_is_found_with_its_calls() -> None:
    explored = Explored(CHAIN)
    assert {name: explored.calls(name) for name in explored.by_fault} == {
        "calm": "reserve charge",
        "reserve REFUSED": "reserve",
        "reserve TIMED_OUT": "reserve*2 -reserve?",
        "reserve RETRIES_EXHAUSTED": "reserve*2",
        "reserve PENDING_FOREVER": "reserve*2 -reserve?",
        "charge REFUSED": "reserve charge -reserve",
        "charge TIMED_OUT": "reserve charge*2 -charge? -reserve",
        "charge RETRIES_EXHAUSTED": "reserve charge*2 -reserve",
        "charge PENDING_FOREVER": "reserve charge*2 -charge? -reserve",
        "DEADLINE_PASSED at reserve": "reserve -reserve",
        "DEADLINE_PASSED at charge": "reserve charge -charge -reserve",
        "COMPENSATE_CALLED at reserve": "reserve -reserve",
        "COMPENSATE_CALLED at charge": "reserve charge -charge -reserve",
        "COMPENSATE_CALLED at end": "reserve charge -charge -reserve",
        "reserve TIMED_OUT, -reserve REFUSED": "reserve*2 -reserve?",
        "reserve TIMED_OUT, -reserve RETRIES_EXHAUSTED": "reserve*2 -reserve?*2",
        "charge REFUSED, -reserve REFUSED": "reserve charge -reserve",
        "charge REFUSED, -reserve RETRIES_EXHAUSTED": "reserve charge -reserve*2",
        "charge TIMED_OUT, -charge REFUSED": "reserve charge*2 -charge?",
        "charge TIMED_OUT, -charge RETRIES_EXHAUSTED": "reserve charge*2 -charge?*2",
        "charge TIMED_OUT, -reserve REFUSED": "reserve charge*2 -charge? -reserve",
        "charge TIMED_OUT, -reserve RETRIES_EXHAUSTED": "reserve charge*2 -charge? -reserve*2",
    }
    assert explored.exploration.left_out == 0


def test_without_a_failing_compensation_a_chain_ends_succeeded_or_compensated() -> None:
    for name, path in Explored(CHAIN).by_fault.items():
        if "-" not in name:
            assert path.state is (SagaState.SUCCEEDED if name == "calm" else SagaState.COMPENSATED), name
            assert path.parkings == ()
            assert (path.failure is None) == (name == "calm")


def test_a_failing_compensation_parks_the_saga_and_says_what_helps() -> None:
    explored = Explored(CHAIN)
    assert explored.parked("charge REFUSED, -reserve REFUSED") == {"reserve": "COMPENSATION_REFUSED"}
    assert explored.parked("charge REFUSED, -reserve RETRIES_EXHAUSTED") == {"reserve": "COMPENSATION_EXHAUSTED"}
    path = explored["charge REFUSED, -reserve REFUSED"]
    assert path.state is SagaState.PARKED
    assert path.parkings[0].allowed_calls == ("RetrySaga", "SkipStep", "CompleteStep", "AbandonSaga")


def test_an_unknown_pivot_parks_and_a_refused_one_is_compensated() -> None:
    explored = Explored(PIVOT)
    for fault in ("TIMED_OUT", "PENDING_FOREVER"):
        assert explored.parked(f"charge {fault}") == {"charge": "PIVOT_OUTCOME_UNKNOWN"}
        assert explored.calls(f"charge {fault}") == "reserve charge*2"
    for fault in ("REFUSED", "RETRIES_EXHAUSTED"):
        assert explored[f"charge {fault}"].state is SagaState.COMPENSATED
        assert explored.calls(f"charge {fault}").endswith("-reserve")


def test_what_fails_after_the_pivot_parks() -> None:
    explored = Explored(PIVOT)
    assert explored.parked("ship REFUSED") == {"ship": "STEP_REFUSED"}
    for fault in ("TIMED_OUT", "RETRIES_EXHAUSTED", "PENDING_FOREVER"):
        assert explored.parked(f"ship {fault}") == {"ship": "STEP_EXHAUSTED"}
        assert explored.calls(f"ship {fault}") == "reserve charge ship*2"


def test_from_the_pivot_on_deadline_and_compensate_saga_are_held_off() -> None:
    explored = Explored(PIVOT)
    held = {name: path.faults[0].held_off_by for name, path in explored.by_fault.items() if path.faults}
    assert {name: reason for name, reason in held.items() if reason} == {
        "DEADLINE_PASSED at charge": "PIVOT_IN_FLIGHT",
        "DEADLINE_PASSED at ship": "PAST_PIVOT",
        "COMPENSATE_CALLED at charge": "PIVOT_IN_FLIGHT",
        "COMPENSATE_CALLED at ship": "PAST_PIVOT",
    }
    assert all(explored[name].state is SagaState.SUCCEEDED for name, reason in held.items() if reason)
    assert explored["COMPENSATE_CALLED at reserve"].state is SagaState.COMPENSATED


def test_a_parked_compensation_blocks_its_ancestors_only() -> None:
    explored = Explored(FORK)
    assert explored.calls("left TIMED_OUT, -right REFUSED") == "root left right -left? -right"
    assert explored.parked("left TIMED_OUT, -right REFUSED") == {"right": "COMPENSATION_REFUSED"}


def test_a_step_that_changes_nothing_is_never_compensated() -> None:
    explored = Explored(definition(step("look", compensation=None, readOnly=True), step("act", maxRetries=0)))
    assert explored.calls("act TIMED_OUT") == "look act -act?"
    assert not any("-look" in name for name in explored.by_fault)


def test_a_step_that_is_switched_off_cannot_fail() -> None:
    explored = Explored(definition(step("off", active=False), step("act")))
    assert explored.calls("calm") == "act"
    assert not any("off" in name for name in explored.by_fault)


def test_the_time_of_a_path_is_that_of_its_longest_waits() -> None:
    message = definition(
        step("first", maxRetries=2, timeout="5s", completionTimeout="3600s", retry={"initialBackoff": "1s"}),
        step("last", retry={"retryFor": "7200s"}),
    )
    explored = Explored(message)
    assert explored["first REFUSED"].duration_ms == 0
    assert explored["first TIMED_OUT"].duration_ms == 3 * 5000 + 999 + 1999  # a back-off stays below its bound
    assert explored["first PENDING_FOREVER"].duration_ms == 3 * 3_600_000
    assert explored["last REFUSED, -first RETRIES_EXHAUSTED"].duration_ms == 24 * 3_600_000
    before = explored["last TIMED_OUT"].duration_ms
    assert explored["last TIMED_OUT, -last RETRIES_EXHAUSTED"].duration_ms == before + 7_200_000


def test_a_deadline_that_comes_first_ends_the_wait() -> None:
    pending = Explored(definition(step("ask", completionTimeout="3600s"), timeout="1800s"))["ask PENDING_FOREVER"]
    assert pending.failure is not None
    assert (pending.failure.reason, pending.duration_ms) == ("DEADLINE_EXCEEDED", 1_800_000)
    assert [call.attempts for call in pending.calls] == [1, 1]


def test_after_the_pivot_the_deadline_ends_no_wait() -> None:
    explored = Explored(definition(pivot("charge", completionTimeout="60s"), retriable("ship"), timeout="1s"))
    assert explored["charge PENDING_FOREVER"].parkings[0].reason is ParkingReason.PIVOT_OUTCOME_UNKNOWN
    assert explored["ship PENDING_FOREVER"].duration_ms == 2 * DAY_MS


def test_paths_are_shown_step_by_step_then_those_of_the_saga_as_a_whole() -> None:
    explored = Explored(CHAIN)
    names = [fault_text(explored.definition, path) for path in sorted(explored.paths, key=reading_order)]
    assert names[:4] == ["calm", "reserve REFUSED", "reserve TIMED_OUT", "reserve TIMED_OUT, -reserve REFUSED"]
    assert names[-1] == "COMPENSATE_CALLED at end"
