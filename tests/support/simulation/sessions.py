"""Sessions between a node and a participant: the real dispatcher and session, over a stream that this world breaks.

Answers come late, twice and in another order; a participant stops and comes back; without a stream calls go one by one.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import grpc

from sagad.v1.common_pb2 import StepOutcome
from sagad.v1.participant_service_pb2 import SessionAnswer, SessionRequest, SessionResponse
from sagad_server.domain.inputs import Failed, NotSent, Outcome, Success, failed_with_code
from sagad_server.domain.states import Direction
from sagad_server.engine.ports import Call
from sagad_server.transport.dispatcher import Dispatcher
from sagad_server.transport.session import Session

if TYPE_CHECKING:
    from support.simulation.node import SimulatedNode
    from support.simulation.world import SimulatedWorld

MAX_FRAME_BYTES = 1500
"""Instead of 256 KiB, so that frames are full and some calls are too long for one."""
_MAX_IN_FLIGHT = 12
_Name = tuple[Direction, str, int]
HandOver = Callable[[Call, Callable[[Call, Outcome], None]], None]


class SimulatedLink:
    """The way from one node to one participant. `hand_over` makes a call outside of a session."""

    def __init__(self, world: "SimulatedWorld", node: "SimulatedNode", name: str, hand_over: HandOver) -> None:
        self.dispatcher = Dispatcher(name, _MAX_IN_FLIGHT, 2.0, node.clock, node.random, node)
        self.dispatcher.wake = self._take
        self.dispatcher.on_open = lambda: self._later(1.0, self.dispatcher.reachable)
        self._world = world
        self._node = node
        self._hand_over = hand_over
        self._calls: dict[_Name, Call] = {}
        """That are not answered yet."""
        self._gone: set[int] = set()
        """Those that were handed over, by id."""
        self._session: Session | None = None
        self._writing = False
        self._arrived_s = 0.0
        """When the last frame arrives: none overtakes it."""
        self._answers: list[SessionAnswer] = []
        self._later(world.chance.random(), self._open)

    def send(self, call: Call) -> None:
        """Queues it, and looks on how it ends."""
        name = call.direction, call.request.idempotency_key, call.attempt
        tell = call.on_outcome

        def told(call: Call, outcome: Outcome) -> None:
            assert self._calls.pop(name, None) is call, f"{name} is answered twice"
            was_gone = id(call) in self._gone
            self._gone.discard(id(call))
            assert was_gone != isinstance(outcome, NotSent), f"{name} was handed over: {was_gone}; it ended {outcome}"
            self._world.note("ended", self._node.name, *name, type(outcome).__name__)
            tell(call, outcome)

        assert name not in self._calls, name
        self._calls[name] = call
        call.on_outcome = told
        self.dispatcher.send(call)

    # -- the node's end

    def _later(self, delay_s: float, callback: Callable[..., object], *arguments: object) -> None:
        self._world.loop.call_later(delay_s, self._node.gate, callback, *arguments)

    def _open(self) -> None:
        self._session = session = Session(self.dispatcher, self._node.clock)
        session.on_over = partial(self._later, 0.01, self._break, session)
        self._world.note("session", self._node.name)
        self._take()

    def _take(self) -> None:
        session = self._session
        if session is None or session.closing:
            while (call := self.dispatcher.take()) is not None:
                self._alone(call)
        elif not self._writing:
            self._writing = True
            self._later(0.0, self._write, session)

    def _alone(self, call: Call) -> None:
        self._gone.add(id(call))
        began_s = self._node.clock.monotonic()
        self._hand_over(
            call,
            lambda call, outcome: self.dispatcher.ended(call, outcome, self._node.clock.monotonic() - began_s),
        )

    def _write(self, session: Session) -> None:
        """One frame after the other, each when the last one has left."""
        if session is not self._session:
            return
        frame, too_long = session.next_frame()
        for call in too_long:
            self._alone(call)
        if not frame.calls:
            self._writing = False
            return
        self._leave(session, frame)
        self._later(
            self._world.chance.random() * (6.0 if self._world.sky.strikes("slow_stream") else 0.01),
            self._write,
            session,
        )

    def _leave(self, session: Session, frame: SessionRequest) -> None:
        world, sky = self._world, self._world.sky
        breaks = sky.strikes("broken_stream")
        lost = breaks and world.chance.random() < 0.5
        self._arrived_s = max(self._arrived_s, world.loop.time() + world.chance.random() * 0.02)
        for message in frame.calls:
            request = message.step if message.HasField("step") else message.compensate
            direction = Direction.ACTION if message.HasField("step") else Direction.COMPENSATION
            call = self._calls[direction, request.idempotency_key, request.attempt]
            assert id(call) not in self._gone, f"{call.request.idempotency_key} is handed over twice"
            self._gone.add(id(call))
            world.dispatched(self._node, call)
            if not lost:
                world.travels += 1
                handling_s = world.chance.random() * (4.0 if sky.strikes("late_call") else 0.02)
                arrival_s = self._arrived_s + handling_s
                world.loop.call_at(arrival_s, self._arrive, session, call, message.call_id)
        if breaks:
            self._later(world.chance.random() * 0.1, self._break, session)
        elif sky.strikes("closing_stream"):
            self._later(world.chance.random(), self._receive, session, SessionResponse(closing=True))

    def _receive(self, session: Session, response: SessionResponse) -> None:
        if session is not self._session:
            return
        session.receive(response)
        if session.closing:
            self._take()
            if session.idle:
                session.on_over()

    def _break(self, session: Session) -> None:
        """Whoever breaks it: nothing more comes on it, and another one is opened later."""
        if session is not self._session:
            return
        self._world.note("session ended", self._node.name)
        session.close(failed_with_code("UNAVAILABLE", "the session broke"))
        self._session = None
        self._writing = False
        self._answers = []
        self._take()
        self._later(self._world.chance.choice([0.1, 1.0, 3.0]), self._open)

    # -- the participant's end

    def _arrive(self, session: Session, call: Call, call_id: int) -> None:
        world = self._world
        world.travels -= 1
        outcome = world.participants.take(call)
        world.note("arrived", call.key[1], call.step, call.direction.name, call.attempt, type(outcome).__name__)
        if isinstance(outcome, Success) and world.sky.strikes("answer_twice"):
            world.workload.workers.tell_again(call)
        if outcome is None or session is not self._session:
            return
        answers = [_answer(call_id, outcome)] * (2 if world.sky.strikes("doubled_answer") else 1)
        for answer in answers:
            world.loop.call_later(world.chance.random() * 0.02, self._ready, session, answer)

    def _ready(self, session: Session, answer: SessionAnswer) -> None:
        """Goes with all that is ready soon."""
        if session is not self._session:
            return
        self._answers.append(answer)
        if len(self._answers) == 1:
            self._world.loop.call_later(0.005, self._flush, session)

    def _flush(self, session: Session) -> None:
        if session is self._session:
            answers, self._answers = self._answers, []
            self._node.gate(partial(self._receive, session, SessionResponse(answers=answers)))


def _answer(call_id: int, outcome: Outcome) -> SessionAnswer:
    answer = SessionAnswer(call_id=call_id)
    if isinstance(outcome, Failed) and outcome.code:
        code: tuple[int, str] = grpc.StatusCode[outcome.code].value
        answer.error.code, answer.error.message = code[0], outcome.failure.message
    else:
        answer.outcome.CopyFrom(_message(outcome))
    return answer


def _message(outcome: Outcome) -> StepOutcome:
    message = StepOutcome()
    if isinstance(outcome, Success):
        message.success.SetInParent()
        if outcome.output is not None:
            message.success.output.CopyFrom(outcome.output)
    elif isinstance(outcome, Failed):
        message.failure.reason, message.failure.message = outcome.failure.reason, outcome.failure.message
        message.failure.retryable, message.failure.never_executed = outcome.retryable, outcome.never_executed
    else:
        message.pending.SetInParent()
    return message
