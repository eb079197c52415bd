"""Participants' workers, who answer by CompleteStep: what was pending, and what was answered before."""

import asyncio
from typing import TYPE_CHECKING

from sagad.storage.v1 import storage_pb2
from sagad_server.domain.errors import Internal, SagadError, Unavailable
from sagad_server.domain.inputs import Failed, Success
from sagad_server.domain.states import Direction, StepState
from sagad_server.engine.ports import Call

if TYPE_CHECKING:
    from support.simulation.workload import Workload

_OPEN = {
    Direction.ACTION: (StepState.RUNNING, StepState.BACKING_OFF, StepState.AWAITING_COMPLETION),
    Direction.COMPENSATION: (
        StepState.COMPENSATING,
        StepState.COMPENSATION_BACKING_OFF,
        StepState.COMPENSATION_AWAITING_COMPLETION,
    ),
}
_CLOSED = ("STEP_CLOSED", "OUTCOME_CONFLICT", "PURGED")


class Workers:
    """All of them."""

    def __init__(self, workload: "Workload") -> None:
        self._workload = workload
        self._world = workload.world
        self._chance = workload.chance

    async def run(self) -> None:
        works = self._world.participants.works
        while True:
            await asyncio.sleep(0.3)
            for work in list(works):
                if self._world.sky.calm or self._chance.random() < 0.15:
                    works.remove(work)
                    if self._world.sky.strikes("forget"):
                        continue
                    self._world.participants.work(work)
                    if work.outcome is not None:
                        self._workload.spawn("completion", self._complete(work.call, work.outcome))

    def tell_again(self, call: Call) -> None:
        """A participant repeats an answer, at some time."""

        async def again() -> None:
            await asyncio.sleep(self._chance.random() * 4)
            outcome = self._world.participants.settled(call)
            if outcome is not None:
                await self._complete(call, outcome)

        self._workload.spawn("completion again", again())

    async def _complete(self, call: Call, outcome: Success | Failed) -> None:
        request = call.request
        while True:
            try:
                await self._workload.ask(
                    lambda node: node.commands.complete(
                        call.key, request.step_id, request.completion_token, outcome, actor="worker"
                    )
                )
            except SagadError as error:
                if self._is_final(call, outcome, error):
                    break
                await self._workload.pause()
            else:
                self._look_applied(call, outcome)
                break
        self._world.note("completed", call.key[1], call.step, call.direction.name)

    def _is_final(self, call: Call, outcome: Success | Failed, error: SagadError) -> bool:
        """Whether it is no use to tell it again. Raises what no worker should ever see."""
        if isinstance(error, Unavailable):
            return error.reason == "SAGA_PARKED" and self._world.sky.calm
        if isinstance(error, Internal) and call.key in self._world.history.unstorable:
            return False
        if error.reason == "OUTCOME_CONFLICT" and isinstance(outcome, Success):
            self._world.history.contradictions.append(f"{call.key[1]}:{call.request.step_id}: {error}")
        elif error.reason not in _CLOSED:
            raise error
        return True

    def _look_applied(self, call: Call, outcome: Success | Failed) -> None:
        """What was accepted is durable: the step does not wait for this answer any more."""
        row = self._world.database.sagas[call.key].row
        if not isinstance(outcome, Success) or row.purge_time is not None:
            return  # a refusal may be followed by another attempt
        step = storage_pb2.SagaRecord.FromString(row.body).steps[call.step]
        if step.generation == call.generation and StepState(step.state) in _OPEN[call.direction]:
            self._world.history.unapplied.append(
                f"{call.key[1]}:{call.request.step_id} is {StepState(step.state).name} after its answer was accepted"
            )
