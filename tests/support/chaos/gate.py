"""A participant whose first steps wait at a gate, and which keeps the books."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sagad.v1.definition_pb2 import Definition
from sagad_participant import Action, Compensation, MemoryBarrier, Participant, start
from support.definitions import definition, step

NAME = "gate"
STEPS = ("one", "two", "three")


class Gate:
    """Answers the step `one` once the gate is open, the others at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0
        """Calls that are at the gate now."""
        self.effects: Counter[tuple[str, str]] = Counter()
        """By saga and step: how often it was done, less how often it was undone."""
        self.address = ""

    def definition(self) -> Definition:
        """The step `one` has time for all the others to come to the gate."""
        steps = [
            step(name, participant=NAME, action="pass", compensation="return", timeout="600s", maxRetries=10)
            for name in STEPS
        ]
        return definition(*steps, definitionId=NAME)

    async def holds(self, calls: int) -> bool:
        """Whether so many wait."""
        return self.waiting >= calls

    async def _pass(self, call: Action) -> None:
        if call.step_id == STEPS[0]:
            self.waiting += 1
            try:
                await self.open.wait()
            finally:
                self.waiting -= 1
        call.connection.after_commit(lambda: self.effects.update([(call.saga_id, call.step_id)]))

    async def _return(self, call: Compensation) -> None:
        call.connection.after_commit(lambda: self.effects.subtract([(call.saga_id, call.step_id)]))

    def violations(self, succeeded: set[str]) -> list[str]:
        """What is wrong, for people, once all sagas have ended and all that were started have succeeded."""
        wanted = Counter({(saga_id, name): 1 for saga_id in succeeded for name in STEPS})
        wrong = {key for key in wanted.keys() | self.effects.keys() if wanted[key] != self.effects[key]}
        return [f"step {name} of saga {saga_id} stands {self.effects[saga_id, name]} times" for saga_id, name in wrong]

    @asynccontextmanager
    async def serving(self, concurrency: int) -> AsyncIterator["Gate"]:
        """So many calls of a session are at the gate at once."""
        participant = Participant(NAME, barrier=MemoryBarrier())
        participant.action("pass")(self._pass)
        participant.compensation("return")(self._return)
        server = await start(participant, max_concurrency=concurrency)
        self.address = server.address
        try:
            yield self
        finally:
            await server.stop(0)
