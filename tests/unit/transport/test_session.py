"""A session and its dispatcher without a stream: on a clock that the test turns."""

from collections.abc import Callable

import pytest
from support.hand_clock import Half, HandClock

from sagad.v1 import participant_service_pb2 as pb
from sagad.v1.common_pb2 import StepOutcome, StepSuccess
from sagad_server.domain.inputs import Failed, NotSent, Outcome, Success, failed_with_code
from sagad_server.domain.states import Direction
from sagad_server.engine.ports import Call
from sagad_server.metrics import Metrics
from sagad_server.transport.breaker import THRESHOLD, BreakerState
from sagad_server.transport.dispatcher import MAX_QUEUED, Dispatcher
from sagad_server.transport.session import MAX_FRAME_BYTES, Session

STEP_TIMEOUT_S = 10.0


class World:
    def __init__(self, max_in_flight: int = 1000) -> None:
        self.clock = HandClock()
        self.dispatcher = Dispatcher("peer", max_in_flight, STEP_TIMEOUT_S, self.clock, Half(), Metrics())
        self.session = Session(self.dispatcher, self.clock)
        self.outcomes: dict[int, list[Outcome]] = {}

    def send(
        self,
        number: int,
        *,
        size: int = 0,
        timeout_ms: int | None = None,
        may_start: Callable[[Call], bool] = lambda _: True,
    ) -> None:
        self.outcomes[number] = []
        request = pb.StepRequest(step_id=str(number))
        request.input.data = bytes(size)
        hear = self.outcomes[number].append
        self.dispatcher.send(
            Call(
                key=("default", str(number)),
                participant="peer",
                step=0,
                direction=Direction.ACTION,
                generation=1,
                attempt=1,
                request=request,
                timeout_ms=timeout_ms,
                metadata=(("tenant", "acme"),),
                may_start=may_start,
                on_outcome=lambda _, outcome: hear(outcome),
            )
        )

    def hand_over(self) -> list[pb.SessionCall]:
        frame, too_long = self.session.next_frame()
        assert not too_long
        return list(frame.calls)

    def answer(self, *call_ids: int) -> None:
        done = StepOutcome(success=StepSuccess())
        answers = [pb.SessionAnswer(call_id=call_id, outcome=done) for call_id in call_ids]
        self.session.receive(pb.SessionResponse(answers=answers))

    def outcome(self, number: int) -> Outcome:
        (outcome,) = self.outcomes[number]
        return outcome

    def code(self, number: int) -> str:
        outcome = self.outcome(number)
        assert isinstance(outcome, Failed)
        assert outcome.ambiguous
        return outcome.code

    def break_down(self) -> None:
        """The breaker opens."""
        for number in range(-THRESHOLD, 0):
            self.send(number)
        self.hand_over()
        self.session.close(failed_with_code("UNAVAILABLE", "gone"))
        assert self.dispatcher.breaker.state is BreakerState.OPEN
        self.session = Session(self.dispatcher, self.clock)


def test_what_is_queued_goes_in_one_frame() -> None:
    world = World()
    for number in range(64):
        world.send(number)
    calls = world.hand_over()
    assert [call.step.step_id for call in calls] == [str(number) for number in range(64)]
    assert len({call.call_id for call in calls}) == 64
    assert calls[0].step.remaining_time.seconds == STEP_TIMEOUT_S
    assert dict(calls[0].metadata) == {"tenant": "acme"}
    assert world.hand_over() == []


def test_answers_in_any_order_end_each_call_once() -> None:
    world = World()
    world.send(1)
    world.send(2)
    first, second = (call.call_id for call in world.hand_over())
    world.answer(second, second, 999)
    world.answer(first, second)
    assert isinstance(world.outcome(1), Success)
    assert isinstance(world.outcome(2), Success)
    assert world.dispatcher.in_flight == 0


def test_no_frame_is_longer_than_256_kib_and_order_is_kept() -> None:
    world = World()
    for number in range(10):
        world.send(number, size=100_000)
    seen = []
    while frame := world.session.next_frame()[0]:
        if not frame.calls:
            break
        assert frame.ByteSize() <= MAX_FRAME_BYTES
        seen += [call.step.step_id for call in frame.calls]
    assert seen == [str(number) for number in range(10)]


def test_a_call_that_fits_into_no_frame_goes_another_way() -> None:
    world = World()
    world.send(1, size=MAX_FRAME_BYTES)
    world.send(2)
    frame, too_long = world.session.next_frame()
    assert [call.request.step_id for call in too_long] == ["1"]
    assert [call.step.step_id for call in frame.calls] == ["2"]


def test_each_call_has_its_own_time_from_its_hand_over_on() -> None:
    world = World(max_in_flight=2)
    world.send(1, timeout_ms=3000)
    world.send(2, timeout_ms=1000)
    world.send(3, timeout_ms=500)
    first, _ = (call.call_id for call in world.hand_over())
    world.clock.turn(1.1)
    assert world.code(2) == "DEADLINE_EXCEEDED"
    assert world.outcomes[1] == world.outcomes[3] == []
    world.hand_over()  # the third, that has waited for longer than its timeout
    world.clock.turn(0.4)
    assert world.outcomes[3] == []
    world.clock.turn(0.2)
    assert world.code(3) == "DEADLINE_EXCEEDED"
    world.answer(first)
    world.clock.turn(10)
    assert isinstance(world.outcome(1), Success)


def test_a_late_answer_is_dropped() -> None:
    world = World()
    world.send(1)
    (call,) = world.hand_over()
    world.clock.turn(STEP_TIMEOUT_S + 0.1)
    world.answer(call.call_id)
    assert world.code(1) == "DEADLINE_EXCEEDED"


def test_a_broken_stream_makes_ambiguous_what_was_handed_over_and_nothing_else() -> None:
    world = World(max_in_flight=4)
    for number in range(3):
        world.send(number, size=100_000)
    world.send(9)
    handed_over = [call.step.step_id for call in world.hand_over()]
    assert handed_over == ["0", "1"]
    world.session.close(failed_with_code("UNAVAILABLE", "gone"))
    assert world.code(0) == world.code(1) == "UNAVAILABLE"
    world.clock.turn(60)
    world.session = Session(world.dispatcher, world.clock)
    assert [call.step.step_id for call in world.hand_over()] == ["2", "9"]


@pytest.mark.parametrize(
    ("number", "name"), [(3, "INVALID_ARGUMENT"), (14, "UNAVAILABLE"), (0, "UNKNOWN"), (99, "UNKNOWN")]
)
def test_an_error_is_read_as_the_status_of_an_rpc(number: int, name: str) -> None:
    world = World()
    world.send(1)
    (call,) = world.hand_over()
    error = pb.SessionError(code=number, message="a\0b")
    error.retry_after.FromMilliseconds(1500)
    world.session.receive(pb.SessionResponse(answers=[pb.SessionAnswer(call_id=call.call_id, error=error)]))
    outcome = world.outcome(1)
    assert isinstance(outcome, Failed)
    assert outcome == failed_with_code(name, "ab", 1500)


def test_an_answer_without_result_is_a_fault_of_the_participant() -> None:
    world = World()
    world.send(1)
    (call,) = world.hand_over()
    world.session.receive(pb.SessionResponse(answers=[pb.SessionAnswer(call_id=call.call_id)]))
    outcome = world.outcome(1)
    assert isinstance(outcome, Failed)
    assert (outcome.ambiguous, outcome.failure.reason) == (True, "INVALID_ANSWER")


def test_nothing_is_handed_over_to_a_session_that_closes() -> None:
    world = World()
    world.send(1)
    (call,) = world.hand_over()
    world.session.receive(pb.SessionResponse(closing=True))
    world.send(2)
    assert world.hand_over() == []
    world.answer(call.call_id)
    assert world.session.idle
    assert isinstance(world.outcome(1), Success)


def test_a_call_that_waits_for_the_next_frame_of_a_session_that_closes_goes_another_way() -> None:
    world = World()
    world.send(1, size=200_000)
    world.send(2, size=200_000)
    world.session.next_frame()
    world.session.receive(pb.SessionResponse(closing=True))
    call = world.dispatcher.take()
    assert call is not None
    assert call.request.step_id == "2"


def test_a_session_that_closes_is_over_when_the_time_of_its_last_call_is() -> None:
    world, over = World(), list[bool]()
    world.session.on_over = lambda: over.append(world.session.idle)
    world.send(1)
    world.session.next_frame()
    world.session.receive(pb.SessionResponse(closing=True))
    assert not over
    world.clock.turn(STEP_TIMEOUT_S)
    assert over == [True]


def test_deadlines_of_ended_calls_take_no_memory() -> None:
    world = World()
    for _ in range(100):
        for number in range(64):
            world.send(number)
        world.answer(*[call.call_id for call in world.hand_over()])
    assert len(world.session._deadlines) <= 1024 + 64


def test_a_participant_that_does_not_answer_is_not_called_until_it_does() -> None:
    world = World()
    world.break_down()
    world.send(1)
    world.send(2)
    assert world.hand_over() == []
    world.dispatcher.reachable()
    (trial,) = world.hand_over()
    assert world.dispatcher.breaker.state is BreakerState.HALF_OPEN
    world.answer(trial.call_id)
    assert world.dispatcher.breaker.state is BreakerState.CLOSED
    assert [call.step.step_id for call in world.hand_over()] == ["2"]


def test_a_trial_that_fails_opens_the_breaker_again() -> None:
    world = World()
    world.break_down()
    world.dispatcher.reachable()
    world.send(1)
    world.hand_over()
    world.session.close(failed_with_code("UNAVAILABLE", "gone"))
    assert world.dispatcher.breaker.state is BreakerState.OPEN


def test_others_need_not_wait_for_a_trial_that_takes_its_time() -> None:
    world = World()
    world.break_down()
    world.dispatcher.reachable()
    world.send(1)
    world.send(2)
    assert len(world.hand_over()) == 1
    world.clock.turn(1.1)
    assert len(world.hand_over()) == 1


def test_who_waits_for_the_breaker_as_long_as_an_attempt_may_take_was_never_sent() -> None:
    world = World()
    world.break_down()
    world.send(1)
    world.send(2, timeout_ms=3000)
    world.clock.turn(4.1)
    assert isinstance(world.outcome(2), NotSent)
    assert world.outcomes[1] == []
    world.clock.turn(STEP_TIMEOUT_S)
    outcome = world.outcome(1)
    assert isinstance(outcome, NotSent)
    assert outcome.uses_retry
    assert outcome.retry_after_ms >= 1000


def test_answers_of_any_kind_keep_the_breaker_closed() -> None:
    world = World()
    for number in range(3 * THRESHOLD):
        world.send(number)
        (call,) = world.hand_over()
        code = 14 if number % THRESHOLD else 3
        error = pb.SessionAnswer(call_id=call.call_id, error=pb.SessionError(code=code))
        world.session.receive(pb.SessionResponse(answers=[error]))
    assert world.dispatcher.breaker.state is BreakerState.CLOSED


def test_a_queued_call_that_may_not_start_any_more_is_no_attempt_and_holds_up_no_other() -> None:
    world = World(max_in_flight=1)
    world.send(0)
    (first,) = world.hand_over()
    world.send(1, may_start=lambda _: False)
    world.send(2)
    world.answer(first.call_id)
    assert [call.step.step_id for call in world.hand_over()] == ["2"]
    world.clock.turn(0)
    (outcome,) = world.outcomes[1]
    assert isinstance(outcome, NotSent)
    assert not outcome.uses_retry
    assert world.dispatcher.in_flight == 1


def test_a_call_that_waits_for_the_next_frame_leaves_only_if_it_still_may_start() -> None:
    world, allowed = World(), [True]
    world.send(1, size=200_000)
    world.send(2, size=200_000, may_start=lambda _: allowed[0])
    world.session.next_frame()
    allowed[0] = False
    frame, _ = world.session.next_frame()
    world.clock.turn(0)
    assert not frame.calls
    (outcome,) = world.outcomes[2]
    assert isinstance(outcome, NotSent)
    assert world.dispatcher.in_flight == 1


def test_the_queue_is_bounded_and_what_is_beyond_was_never_sent() -> None:
    world = World()
    for number in range(MAX_QUEUED + 1):
        world.send(number)
    world.clock.turn(0)
    outcome = world.outcome(MAX_QUEUED)
    assert isinstance(outcome, NotSent)
    assert 1000 <= outcome.retry_after_ms <= 30_000
    assert world.outcomes[0] == []


def test_a_drain_sends_nothing_more() -> None:
    world = World(max_in_flight=1)
    world.send(1)
    world.send(2)
    (call,) = world.hand_over()
    world.dispatcher.drain()
    world.send(3)
    world.clock.turn(0)
    assert isinstance(world.outcome(2), NotSent)
    assert isinstance(world.outcome(3), NotSent)
    world.answer(call.call_id)
    assert isinstance(world.outcome(1), Success)
