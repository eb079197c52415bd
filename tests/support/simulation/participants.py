"""Participants as the contract wants them: whatever else goes wrong, the same key has the same effect.

A compensation is taken for an action never seen, and the action is refused when it comes later. Every effect is noted
for the onlooker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from google.protobuf.struct_pb2 import Value

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.inputs import Failed, Outcome, Pending, Success
from sagad_server.domain.states import Direction
from sagad_server.engine.ports import Call
from sagad_server.storage.rows import Key
from support.play import code, refused
from support.simulation.history import Effect, History
from support.simulation.weather import Sky

CRASHED = ("UNAVAILABLE", "INTERNAL", "ALREADY_EXISTS")
UNSTORABLE = "what the store does not take"
"""In an output."""


def text(value: str) -> Payload:
    return Payload(json=Value(string_value=value))


@dataclass(slots=True)
class Work:
    """What was promised by `pending`, to be done later and told by CompleteStep."""

    call: Call
    outcome: Success | Failed | None = None


class Participants:
    """All of them. `barrier` holds done, undone or refused for each key."""

    def __init__(self, sky: Sky, chance: Random, history: History, now: Callable[[], float]) -> None:
        self._sky = sky
        self._chance = chance
        self._history = history
        self._now = now
        self.barrier: dict[str, str] = {}
        self.works: list[Work] = []

    def take(self, call: Call) -> Outcome | None:
        """A call has arrived. None: it hangs, and never answers."""
        if self._sky.strikes("turned_away"):  # by what stands before the participant
            return code("PERMISSION_DENIED")
        outcome = self._act(call) if call.direction is Direction.ACTION else self._undo(call)
        if isinstance(outcome, Success) and outcome.output is not None and self._sky.strikes("unstorable"):
            self._history.unstorable.add(call.key)
            return Success(text(UNSTORABLE))
        return None if self._sky.strikes("hang") else outcome

    def _act(self, call: Call) -> Outcome:
        key = call.request.idempotency_key
        known = self.barrier.get(key)
        if known == "done":
            return Success(text(key))
        if known is not None:
            return refused(never_executed=known == "undone")
        if self._sky.strikes("pending"):
            self.works.append(Work(call))
            return Pending()
        if self._sky.strikes("refuse_for_now"):
            return refused(retryable=True)
        if self._sky.strikes("refuse"):
            self.barrier[key] = "refused"
            return self._chance.choice([refused(), code("NOT_FOUND"), refused(never_executed=True)])
        return self._done(call)

    def _undo(self, call: Call) -> Outcome:
        if self.barrier.get(call.request.idempotency_key) == "undone":
            return Success(None)
        if self._sky.strikes("pending"):
            self.works.append(Work(call))
            return Pending()
        if self._sky.strikes("refuse"):
            return self._chance.choice([refused(), refused(retryable=True), code("PERMISSION_DENIED")])
        return self._undone(call)

    def work(self, work: Work) -> None:
        """Pending work is done together with its barrier, unless that says no: then nothing will be told."""
        known = self.barrier.get(work.call.request.idempotency_key)
        if work.call.direction is Direction.COMPENSATION:
            work.outcome = Success(None) if known == "undone" else self._undone(work.call)
        elif known == "done":
            work.outcome = Success(text(work.call.request.idempotency_key))
        elif known is None and self._sky.strikes("refuse"):
            self.barrier[work.call.request.idempotency_key] = "refused"
            work.outcome = refused()
        elif known is None:
            work.outcome = self._done(work.call)

    def settled(self, call: Call) -> Success | Failed | None:
        """What can be said of a call again, and stays true."""
        known = self.barrier.get(call.request.idempotency_key)
        if call.direction is Direction.COMPENSATION:
            return Success(None) if known == "undone" else None
        return Success(text(call.request.idempotency_key)) if known == "done" else None

    def by_hand(self, saga: Key, step: int, key: str, *, done: bool) -> None:
        """An operator has settled it outside, and put the barrier there."""
        wanted = "done" if done else "undone"
        if self.barrier.get(key) != wanted:
            self.barrier[key] = wanted
            direction = Direction.ACTION if done else Direction.COMPENSATION
            self._history.effects.append(Effect(self._now(), saga, step, key, direction, by_hand=True))

    def _done(self, call: Call) -> Success:
        return Success(text(self._take_effect(call, "done")))

    def _undone(self, call: Call) -> Success:
        self._take_effect(call, "undone")
        return Success(None)

    def _take_effect(self, call: Call, state: str) -> str:
        key = call.request.idempotency_key
        self.barrier[key] = state
        self._history.effects.append(
            Effect(self._now(), call.key, call.step, key, call.direction, dict(call.request.lock_tokens))
        )
        return key
