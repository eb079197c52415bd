"""The calls of participants that committed transitions ask for."""

from collections.abc import Callable

from sagad_server.domain.inputs import Outcome
from sagad_server.domain.states import Direction
from sagad_server.engine.active import ActiveSaga
from sagad_server.engine.ports import Call, Transport
from sagad_server.engine.requests import compensate_request, step_request
from sagad_server.engine.tokens import Tokens


class Calls:
    """Makes calls and hands them over; past the lease it holds them, since another node may drive their sagas."""

    def __init__(
        self,
        transport: Transport,
        tokens: Tokens,
        holds_lease: Callable[[], bool],
        may_start: Callable[[Call], bool],
        answered: Callable[[Call, Outcome], None],
    ) -> None:
        self._transport = transport
        self._tokens = tokens
        self._holds_lease = holds_lease
        self._may_start = may_start
        self._on_answer = answered
        self._held: list[Call] = []
        self.in_flight = 0

    @property
    def held(self) -> int:
        """Those that wait for the lease."""
        return len(self._held)

    def make(self, active: ActiveSaga, index: int, direction: Direction) -> None:
        """The next attempt of a step."""
        saga = active.saga
        step, node = saga.steps[index], saga.definition.steps[index]
        action = direction is Direction.ACTION
        request = step_request if action else compensate_request
        call = Call(
            key=active.key,
            participant=node.participant,
            step=index,
            direction=direction,
            generation=step.generation,
            attempt=step.attempt if action else step.compensation_attempt,
            request=request(saga, index, active.epoch, self._tokens),
            timeout_ms=node.timeout_ms,
            metadata=tuple(saga.metadata.items()),
            may_start=self._may_start,
            on_outcome=self._answered,
        )
        if self._holds_lease():
            self._send(call)
        else:
            self._held.append(call)

    def _send(self, call: Call) -> None:
        self.in_flight += 1
        self._transport.send(call)

    def _answered(self, call: Call, outcome: Outcome) -> None:
        self.in_flight -= 1
        self._on_answer(call, outcome)

    def release(self) -> None:
        """The lease is renewed: what was held for want of it is sent, unless its saga has ended or moved meanwhile."""
        if not self._holds_lease():
            return
        held, self._held = self._held, []
        for call in held:
            if self._may_start(call):
                self._send(call)

    def drop(self) -> None:
        """What is held is not to be sent any more."""
        self._held.clear()
