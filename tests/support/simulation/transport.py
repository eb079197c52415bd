"""The way from one node to the participants: calls arrive late, twice, in another order, or not at all."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sagad_server.domain.inputs import NotSent, Outcome, Pending, Success
from sagad_server.engine.ports import Call
from support.play import TIMED_OUT, code
from support.simulation.participants import CRASHED
from support.simulation.sessions import SimulatedLink

if TYPE_CHECKING:
    from support.simulation.node import SimulatedNode
    from support.simulation.world import SimulatedWorld

Tell = Callable[[Call, Outcome], None]


class SimulatedTransport:
    """Answers each call exactly once, by the node's own clock where nobody else does."""

    def __init__(self, world: "SimulatedWorld", node: "SimulatedNode") -> None:
        self._world = world
        self._node = node
        self._open: dict[int, tuple[Call, Tell]] = {}
        self._links = {name: SimulatedLink(world, node, name, self._hand_over) for name in world.weather.sessions}
        self.draining = False

    def send(self, call: Call) -> None:
        world, node = self._world, self._node
        if call.participant in self._links:
            self._links[call.participant].send(call)
            return
        if self.draining or world.sky.strikes("not_sent"):
            world.loop.call_soon(node.gate, call.on_outcome, call, NotSent("not now"))
            return
        self._hand_over(call, call.on_outcome)

    @property
    def unfinished(self) -> int:
        """Calls of sessions that have not ended."""
        return sum(link.dispatcher.queued + link.dispatcher.in_flight for link in self._links.values())

    def _hand_over(self, call: Call, tell: Tell) -> None:
        world, node = self._world, self._node
        world.dispatched(node, call)
        self._open[id(call)] = call, tell
        sky = world.sky
        assert call.timeout_ms is not None, "every step of this world has its own"
        node.clock.call_at(node.clock.monotonic() + call.timeout_ms / 1000, lambda: self._answer(call, TIMED_OUT))
        if not sky.strikes("lost_call"):
            self._deliver(call, again=sky.strikes("doubled_call"), heard=True)

    async def drain(self) -> None:
        self.draining = True
        for link in self._links.values():
            link.dispatcher.drain()

    def _deliver(self, call: Call, *, again: bool, heard: bool) -> None:
        """`again`: something on the way sends it once more, unless it was definitely refused. Only the first answer is
        `heard`."""
        world = self._world
        delay_s = world.chance.random() * (4.0 if world.sky.strikes("late_call") else 0.02)
        world.travels += 1

        def arrive() -> None:
            outcome = world.participants.take(call)
            world.note("arrived", call.key[1], call.step, call.direction.name, call.attempt, _word(outcome))
            if outcome is not None and world.sky.strikes("lost_answer"):
                outcome = code(world.chance.choice(CRASHED))
            world.travels -= 1
            if again and isinstance(outcome, Success | Pending):
                self._deliver(call, again=False, heard=False)
            if isinstance(outcome, Success) and world.sky.strikes("answer_twice"):
                world.workload.workers.tell_again(call)
            if outcome is not None and heard:
                world.loop.call_later(world.chance.random() * 0.02, self._node.gate, self._answer, call, outcome)

        world.loop.call_later(delay_s, arrive)

    def _answer(self, call: Call, outcome: Outcome) -> None:
        _, tell = self._open.pop(id(call), (None, None))
        if tell is not None:
            self._world.note("answered", self._node.name, call.key[1], call.step, call.attempt, _word(outcome))
            tell(call, outcome)


def _word(outcome: Outcome | None) -> str:
    if outcome is None:
        return "hangs"
    failure = getattr(outcome, "failure", None)
    return type(outcome).__name__ if failure is None else failure.reason
