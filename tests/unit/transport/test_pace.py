"""A participant's calls that wait for a token: they are queued, and nothing else happens to them."""

from collections.abc import Callable

from support.buckets import Heard
from support.hand_clock import Half, HandClock

from sagad.v1 import participant_service_pb2 as pb
from sagad_server.domain.inputs import Outcome, Success
from sagad_server.domain.states import Direction
from sagad_server.engine.ports import Call
from sagad_server.guard.bucket import Rate
from sagad_server.guard.limit import Kind, Subject
from sagad_server.guard.local import LocalLimit
from sagad_server.guard.pace import Pace
from sagad_server.metrics import Metrics
from sagad_server.transport.dispatcher import Dispatcher


class Paced:
    """A dispatcher whose calls go as soon as they may."""

    def __init__(self, rate: Rate) -> None:
        self.clock, self.heard = HandClock(), Heard()
        limit = LocalLimit(Subject(Kind.PARTICIPANT, "peer", rate), self.clock)
        pace = Pace(limit, self.clock, self.heard)
        self.dispatcher = Dispatcher("peer", 1000, 10.0, self.clock, Half(), Metrics(), pace)
        self.dispatcher.wake = self._take
        self.gone: list[tuple[float, Call]] = []
        self.outcomes: list[Outcome] = []

    def _take(self) -> None:
        while (call := self.dispatcher.take()) is not None:
            self.gone.append((self.clock.now_s, call))

    def send(self, number: int, may_start: Callable[[Call], bool] = lambda _: True) -> None:
        self.dispatcher.send(
            Call(
                key=("default", str(number)),
                participant="peer",
                step=0,
                direction=Direction.ACTION,
                generation=1,
                attempt=1,
                request=pb.StepRequest(),
                timeout_ms=1000,
                metadata=(),
                may_start=may_start,
                on_outcome=lambda _, outcome: self.outcomes.append(outcome),
            )
        )


def test_calls_go_at_the_rate_and_in_their_order() -> None:
    paced = Paced(Rate(10, 3))
    for number in range(13):
        paced.send(number)
    assert len(paced.gone) == 3
    assert paced.dispatcher.queued == 10
    paced.clock.turn(0.55)
    assert len(paced.gone) == 8
    paced.clock.turn(0.5)
    assert [call.key[1] for _, call in paced.gone] == [str(number) for number in range(13)]
    assert set(paced.heard.kinds) == {Kind.PARTICIPANT}


def test_a_call_that_waits_however_long_has_no_outcome() -> None:
    paced = Paced(Rate(0.01, 1))
    paced.send(0)
    paced.send(1)
    paced.clock.turn(99)
    assert (len(paced.gone), paced.outcomes) == (1, [])
    paced.clock.turn(2)
    assert (len(paced.gone), paced.outcomes) == (2, [])


def test_a_call_that_may_not_start_any_more_uses_no_token() -> None:
    paced = Paced(Rate(0.01, 2))
    paced.send(0, may_start=lambda _: False)
    paced.send(1)
    paced.send(2)
    assert [call.key[1] for _, call in paced.gone] == ["1", "2"]


def test_a_call_that_could_not_leave_uses_no_token() -> None:
    paced = Paced(Rate(0.01, 1))
    paced.send(0)
    paced.dispatcher.put_back(paced.gone[0][1])
    assert [call.key[1] for _, call in paced.gone] == ["0", "0"]


def test_an_ended_call_does_not_let_the_next_go_before_its_token() -> None:
    paced = Paced(Rate(1, 1))
    paced.send(0)
    paced.send(1)
    paced.dispatcher.ended(paced.gone[0][1], Success(None), 0.1)
    assert len(paced.gone) == 1
    paced.clock.turn(1.001)
    assert len(paced.gone) == 2
