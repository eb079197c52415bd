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
MOVING = SagaFilter(states=[SagaState.SAGA_STATE_RUNNING, SagaState.SAGA_STATE_COMPENSATING])
UNDONE_BY_CLIENT = 0.1
"""How many orders their clients call back, through any node."""


class Shop:
    """Clients that order without end, and remember what was acknowledged."""

    def __init__(self, clients: Sequence[Client], chance: random.Random) -> None:
        self.clients = clients
        self.acknowledged: list[str] = []
        self.next_faults: list[str] = []
        """Of the orders that come next, before those by chance."""
        self._chance = chance
        self._count = 0
        self._open = True
        self._orders: list[asyncio.Task[None]] = []

    def open(self, clients: int) -> None:
        """So many order at once from now on."""
        self._orders = [asyncio.create_task(self._order_until_closed()) for _ in range(clients)]

    async def close(self) -> None:
        """Returns when the last order is acknowledged. Raises what a client was refused with."""
        self._open = False
        await asyncio.gather(*self._orders)

    async def abandon(self) -> None:
        """Ends its clients as they are."""
        for order_task in self._orders:
            order_task.cancel()
        await asyncio.gather(*self._orders, return_exceptions=True)

    async def _order_until_closed(self) -> None:
        while self._open:
            await self._order()
            await asyncio.sleep(self._chance.uniform(0.0, 0.05))

    async def _order(self) -> None:
        self._count += 1
        order_id = f"o-{self._count:06d}"
        fault = self.next_faults.pop() if self.next_faults else self._chance.choice(FAULTS)
        await self._chance.choice(self.clients).start(
            "order",
            order(order_id, amount_cents=self._chance.randint(1, 9_999)),
            saga_id=order_id,
            labels={"example-fault": fault} if fault else {},
        )
        self.acknowledged.append(order_id)
        if self._chance.random() < UNDONE_BY_CLIENT:
            await self._chance.choice(self.clients).compensate(order_id, reason="called back")

    async def ends(self, limit_s: float = 120) -> list[Saga]:
        """All that there are once none moves any more, those too whose acknowledgement was lost.

        Raises AssertionError if some still move after the limit.
        """
        client, loop = self.clients[0], asyncio.get_running_loop()
        give_up_at = loop.time() + limit_s
        while moving := [saga async for saga in client.list(MOVING)]:
            assert loop.time() < give_up_at, f"{len(moving)} sagas still move after {limit_s} s: {moving[:3]}"
            await asyncio.sleep(0.1)
        return [saga async for saga in client.list(page_size=1000)]
