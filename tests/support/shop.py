"""Clients of the example participants, for chaos."""

import asyncio
import random
from collections.abc import Sequence

from sagad.v1.saga_pb2 import Saga, SagaFilter, SagaState
from sagad_client import Backoff, Client
from support.example_participants import order

PATIENT = Backoff(attempts=500, max_s=0.3)
FAULTS = ("", "", "", "payment=refuse", "payment=late:1", "inventory=timeout:1", "shipping=refuse", "shipping=pending")
ENDED = {SagaState.SAGA_STATE_SUCCEEDED, SagaState.SAGA_STATE_COMPENSATED}


class Shop:
    """Clients that order without end, and remember what was acknowledged."""

    def __init__(self, clients: Sequence[Client], chance: random.Random) -> None:
        self.clients = clients
        self.acknowledged: list[str] = []
        self._chance = chance
        self._count = 0

    async def order_for_ever(self) -> None:
        while True:
            self._count += 1
            order_id = f"o-{self._count:06d}"
            fault = self._chance.choice(FAULTS)
            await self._chance.choice(self.clients).start(
                "order",
                order(order_id, amount_cents=self._chance.randint(1, 99_999)),
                saga_id=order_id,
                labels={"example-fault": fault} if fault else {},
            )
            self.acknowledged.append(order_id)
            await asyncio.sleep(self._chance.uniform(0.0, 0.05))

    async def ends(self) -> list[Saga]:
        """All that were ever acknowledged, and those whose acknowledgement was lost."""
        client = self.clients[0]
        waiting = [client.wait(saga_id, timeout_s=120) for saga_id in self.acknowledged]
        known = await asyncio.gather(*waiting)
        others = [
            await client.wait(saga.saga_id, timeout_s=120)
            async for saga in client.list(SagaFilter())
            if saga.saga_id not in set(self.acknowledged)
        ]
        return [*known, *others]
