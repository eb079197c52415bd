"""Two hundred sagas to put through a sagad that is disturbed."""

import asyncio

from sagad.v1.saga_pb2 import Saga, SagaState
from sagad.v1.saga_service_pb2 import StartSagaRequest
from sagad_client import Backoff, Client, to_payload
from support.keeper import DEFINITION_ID, Keeper, kept_definition

PATIENT = Backoff(attempts=200, max_s=0.5)
SAGAS = 200


class Load:
    """Two hundred sagas, of which every fourth is refused at its last step."""

    def __init__(self, address: str, keeper: Keeper) -> None:
        self.client = Client(address, backoff=PATIENT, timeout_s=60)
        self.keeper = keeper
        self.ids = [f"s-{i:04d}" for i in range(SAGAS)]

    async def prepare(self) -> None:
        await self.client.definitions.create(kept_definition())

    async def start(self, saga_ids: list[str] | None = None) -> None:
        """Acknowledged when this returns."""
        await asyncio.gather(*(self._start(saga_id) for saga_id in saga_ids or self.ids))

    async def _start(self, saga_id: str) -> None:
        await self.client.start(DEFINITION_ID, {"n": saga_id}, saga_id=saga_id, labels=_labels(saga_id))

    def request(self, saga_id: str) -> StartSagaRequest:
        """The same start, for a stream."""
        return StartSagaRequest(
            saga_id=saga_id, definition_id=DEFINITION_ID, input=to_payload({"n": saga_id}), labels=_labels(saga_id)
        )

    async def check(self) -> None:
        """Every saga has ended as it should, and the participant's books agree."""
        sagas: list[Saga] = await asyncio.gather(*(self.client.wait(one, timeout_s=60) for one in self.ids))
        succeeded = {saga.saga_id for saga in sagas if saga.state == SagaState.SAGA_STATE_SUCCEEDED}
        compensated = {saga.saga_id for saga in sagas if saga.state == SagaState.SAGA_STATE_COMPENSATED}
        refused = {saga_id for saga_id in self.ids if int(saga_id[2:]) % 4 == 0}
        assert succeeded | compensated == set(self.ids)
        assert refused <= compensated
        assert self.keeper.violations(succeeded, compensated) == []


def _labels(saga_id: str) -> dict[str, str]:
    return {"refuse": "yes"} if int(saga_id[2:]) % 4 == 0 else {}
