"""The example participant `shipping`: hands orders to a carrier and tells customers."""

from collections.abc import Mapping
from typing import Any

from sagad_examples.fields import text
from sagad_examples.service import Effect, Service
from sagad_participant import Action, Compensation, Refused, action, compensation


class Shipping(Service):
    """Shipments and notices, one each an order."""

    name = "shipping"

    @property
    def effects(self) -> Mapping[str, Effect]:
        return {"create_shipment": self._create, "notify_customer": self._notify}

    @action("create_shipment")
    async def create_shipment(self, call: Action) -> object:
        """Input: order_id, customer. Output: tracking. Refuses with ORDER_EXISTS, INVALID_ORDER."""
        return await self.act(call)

    async def _create(self, connection: Any, key: str, order: Any) -> dict[str, object]:
        order_id, customer = text(order, "order_id"), text(order, "customer")
        tracking = f"T-{order_id}"
        inserted = await connection.execute(
            "INSERT INTO shipping.shipment (order_id, customer, tracking) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            order_id,
            customer,
            tracking,
        )
        if inserted != "INSERT 0 1":
            raise Refused("ORDER_EXISTS", f"order {order_id} is shipped already")
        await self.record(connection, key, "action", "create_shipment", order_id, 1)
        return {"tracking": tracking}

    @compensation("cancel_shipment")
    async def cancel(self, call: Compensation) -> None:
        """Calls the shipment back."""
        if await self.nothing_to_undo(call):
            return
        order_id = text(call.json, "order_id")
        await call.connection.execute("DELETE FROM shipping.shipment WHERE order_id = $1", order_id)
        await self.record(call.connection, call.idempotency_key, "compensation", "cancel_shipment", order_id, 1)

    @action("notify_customer")
    async def notify(self, call: Action) -> object:
        """Input: order_id, customer. Refuses with ORDER_EXISTS, INVALID_ORDER."""
        return await self.act(call)

    async def _notify(self, connection: Any, key: str, order: Any) -> dict[str, object]:
        order_id, customer = text(order, "order_id"), text(order, "customer")
        inserted = await connection.execute(
            "INSERT INTO shipping.notice (order_id, customer) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            order_id,
            customer,
        )
        if inserted != "INSERT 0 1":
            raise Refused("ORDER_EXISTS", f"the customer of order {order_id} is told already")
        await self.record(connection, key, "action", "notify_customer", order_id, 1)
        return {}
