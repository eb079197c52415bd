"""Participants as the contract wants them, and what an onlooker knows of their effects.

Same key, same effect: a compensation is taken for an action never seen, and the action is refused when it comes later.
What must never happen is asserted at the moment when it would.
"""

from dataclasses import dataclass, field
from random import Random

from sagad.v1.participant_service_pb2 import StepRequest
from sagad_server.domain.definition import Definition
from sagad_server.domain.graph import bits
from sagad_server.domain.inputs import Failed, Outcome, Pending, Success
from sagad_server.domain.states import Direction
from sagad_server.engine.ports import Call
from sagad_server.storage.store import Key
from support.play import code, payload, refused


@dataclass
class Work:
    """What was answered with `pending`: it is done later, and told by CompleteStep until somebody listens."""

    call: Call
    outcome: Success | Failed | None = None
    """What it has come to; None: not done yet."""


@dataclass
class Honest:
    """All participants. `effects` holds done, undone or refused for each key."""

    chance: Random
    definitions: dict[str, Definition]
    effects: dict[str, str] = field(default_factory=dict)
    keys: dict[Key, dict[int, set[str]]] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)
    calm: bool = False

    def take(self, call: Call) -> Outcome:
        """A call has arrived."""
        key = call.request.idempotency_key
        self.keys.setdefault(call.key, {}).setdefault(call.step, set()).add(key)
        return self._act(call) if call.direction is Direction.ACTION else self._undo(call)

    def _act(self, call: Call) -> Outcome:
        assert isinstance(call.request, StepRequest)
        key = call.request.idempotency_key
        known = self.effects.get(key)
        if known == "done":
            return Success(payload(key))
        if known is not None:
            return refused(never_executed=known == "undone")
        roll = 0.0 if self.calm else self.chance.random()
        if roll < 0.7:
            return self._done(call)
        if roll < 0.78:
            self.works.append(Work(call))
            return Pending()
        if roll < 0.9:
            return refused(retryable=True)
        self.effects[key] = "refused"
        return self.chance.choice([refused(), code("NOT_FOUND"), refused(never_executed=True)])

    def _undo(self, call: Call) -> Outcome:
        key = call.request.idempotency_key
        if self.effects.get(key) == "undone":
            return Success(None)
        roll = 0.0 if self.calm else self.chance.random()
        if roll < 0.75:
            return self._undone(call)
        if roll < 0.83:
            self.works.append(Work(call))
            return Pending()
        return self.chance.choice([refused(), refused(retryable=True), code("PERMISSION_DENIED")])

    def work(self, work: Work) -> None:
        """Pending work is done, together with its barrier, unless that says no."""
        if work.outcome is not None:
            return
        key = work.call.request.idempotency_key
        if work.call.direction is Direction.COMPENSATION:
            work.outcome = self._undone(work.call)
        elif self.effects.get(key) in ("undone", "refused"):
            self.works.remove(work)
        elif self.calm or self.chance.random() < 0.85 or key in self.effects:
            work.outcome = self._done(work.call)
        else:
            self.effects[key] = "refused"
            work.outcome = refused()

    def by_hand(self, saga: Key, key: str, step: int, *, done: bool) -> None:
        """An operator has settled it outside, and put the barrier there."""
        self.keys.setdefault(saga, {}).setdefault(step, set()).add(key)
        self.effects[key] = "done" if done else "undone"

    def is_done(self, saga: Key, step: int) -> bool:
        return any(self.effects.get(key) == "done" for key in self.keys.get(saga, {}).get(step, ()))

    def _done(self, call: Call) -> Success:
        key = call.request.idempotency_key
        definition = self.definitions[call.request.definition_id]
        for before in bits(0 if definition.steps[call.step].read_only else definition.steps[call.step].ancestors):
            undone = [k for k in self.keys.get(call.key, {}).get(before, ()) if self.effects.get(k) == "undone"]
            assert not undone, f"{key} takes effect after {undone} was compensated"
        self.effects[key] = "done"
        return Success(payload(key))

    def _undone(self, call: Call) -> Success:
        key = call.request.idempotency_key
        definition = self.definitions[call.request.definition_id]
        for after in bits(definition.steps[call.step].descendants):
            if not definition.steps[after].read_only:
                assert not self.is_done(call.key, after), (
                    f"{key} is compensated before step {after}, whose effect stands"
                )
        self.effects[key] = "undone"
        return Success(None)
