"""Calls of one participant by the server's own dispatcher and session: on a stream that breaks, or one by one while
there is none."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from sagad.v1.common_pb2 import StepFailure, StepOutcome, StepPending, StepSuccess
from sagad.v1.participant_service_pb2 import SessionAnswer, SessionError, SessionResponse
from sagad_server.domain.inputs import Failed, NotSent, Outcome, Pending, Success, failed_with_code
from sagad_server.engine.ports import Call
from sagad_server.transport.dispatcher import Dispatcher
from sagad_server.transport.session import Session
from support.play import code
from support.simulation.participants import CRASHED

if TYPE_CHECKING:
    from support.simulation.node import SimulatedNode
    from support.simulation.world import SimulatedWorld

HandOver = Callable[[Call, Callable[[Call, Outcome], None]], None]

_MAX_IN_FLIGHT = 8
"""So few that calls wait."""
_STEP_TIMEOUT_S = 30.0
_PROBE_S = 1.0


class SimulatedLink:
    """What `transport.link` is to a real participant."""

    def __init__(self, world: "SimulatedWorld", node: "SimulatedNode", name: str, alone: HandOver) -> None:
        self._world = world
        self._node = node
        self._name = name
        self._alone = alone
        self.dispatcher = Dispatcher(name, _MAX_IN_FLIGHT, _STEP_TIMEOUT_S, node.clock, node.random, node)
        self.dispatcher.wake = self._wake
        self.dispatcher.on_open = self._probe
        self._session: Session | None = None
        self._woken = False
        self._open()

    def _open(self) -> None:
        self._session = Session(self.dispatcher, self._node.clock)
        self._wake()

    def _break(self) -> None:
        """What was handed over may have happened, what is queued goes another way; later there is a stream again."""
        session, self._session = self._session, None
        assert session is not None
        self._world.note("session broken", self._node.name, self._name)
        session.close(failed_with_code("UNAVAILABLE", "the session broke"))
        self._wake()
        self._world.loop.call_later(self._world.chance.random() * 3.0, self._node.gate, self._open)

    def _probe(self) -> None:
        self._world.loop.call_later(_PROBE_S, self._node.gate, self.dispatcher.reachable)

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._world.loop.call_soon(self._node.gate, self._take)

    def _take(self) -> None:
        self._woken = False
        if self._session is None:
            while (call := self.dispatcher.take()) is not None:
                since_s = self._node.clock.monotonic()
                self._alone(call, lambda call, outcome, since_s=since_s: self._ended(call, outcome, since_s))  # type: ignore[misc]
            return
        frame, too_long = self._session.next_frame()
        assert not too_long, "nothing is that large in this world"
        for message in frame.calls:
            self._deliver(self._session, message.call_id, self._session._open[message.call_id].call)
        if frame.calls and self._world.sky.strikes("broken_session"):
            self._break()

    def _ended(self, call: Call, outcome: Outcome, since_s: float) -> None:
        self.dispatcher.ended(call, outcome, self._node.clock.monotonic() - since_s)

    def _deliver(self, session: Session, call_id: int, call: Call) -> None:
        """The call of a frame that was handed over; its answer comes by itself, perhaps after those of others."""
        world, sky = self._world, self._world.sky
        world.dispatched(self._node, call)
        if sky.strikes("lost_call"):
            return
        delay_s = world.chance.random() * (4.0 if sky.strikes("late_call") else 0.02)
        world.travels += 1

        def arrive() -> None:
            outcome = world.participants.take(call)
            world.travels -= 1
            world.note("arrived by session", call.key[1], call.step, call.direction.name, call.attempt, str(outcome))
            if outcome is None:
                return
            if sky.strikes("lost_answer"):
                outcome = code(world.chance.choice(CRASHED))
            response = SessionResponse(answers=[_answer(call_id, outcome)])
            for _ in range(2 if sky.strikes("answer_twice") else 1):
                world.loop.call_later(world.chance.random() * 0.02, self._node.gate, self._receive, session, response)

        world.loop.call_later(delay_s, arrive)

    def _receive(self, session: Session, response: SessionResponse) -> None:
        if session is self._session:
            session.receive(response)
            if self._world.sky.strikes("broken_session"):
                self._break()


def _answer(call_id: int, outcome: Outcome) -> SessionAnswer:
    if isinstance(outcome, Failed) and outcome.code:
        number = grpc.StatusCode[outcome.code].value[0]
        return SessionAnswer(call_id=call_id, error=SessionError(code=number, message=outcome.failure.message))
    return SessionAnswer(call_id=call_id, outcome=_message(outcome))


def _message(outcome: Outcome) -> StepOutcome:
    assert not isinstance(outcome, NotSent), "a participant has got it"
    if isinstance(outcome, Success):
        return StepOutcome(success=StepSuccess(output=outcome.output))
    if isinstance(outcome, Pending):
        return StepOutcome(pending=StepPending())
    failure = outcome.failure
    return StepOutcome(
        failure=StepFailure(
            reason=failure.reason,
            message=failure.message,
            retryable=outcome.retryable,
            never_executed=outcome.never_executed,
        )
    )
