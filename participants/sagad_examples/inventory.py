"""The example participant `inventory`: sets stock aside for orders."""

from collections.abc import Mapping
from typing import Any

from sagad_examples.fields import positive, text
from sagad_examples.service import Effect, Service
from sagad_participant import Action, Compensation, Refused, action, compensation


class Inventory(Service):
    """Stock by sku; a reservation moves some of it from the shelf to an order."""

    name = "inventory"

    @property
    def effects(self) -> Mapping[str, Effect]:
        return {"reserve_stock": self._reserve}

    @action("reserve_stock")
    async def reserve(self, call: Action) -> object:
        """Input: order_id, sku, quantity. Refuses with OUT_OF_STOCK, UNKNOWN_SKU, ORDER_EXISTS, INVALID_ORDER."""
        return await self.act(call)

    async def _reserve(self, connection: Any, key: str, order: Any) -> dict[str, object]:
        order_id, sku, quantity = text(order, "order_id"), text(order, "sku"), positive(order, "quantity")
        left = await connection.fetchval(
            "UPDATE inventory.stock SET on_hand = on_hand - $2 WHERE sku = $1 AND on_hand >= $2 RETURNING on_hand",
            sku,
            quantity,
        )
        if left is None:
            raise await self._too_little(connection, sku, quantity)
        inserted = await connection.execute(
            "INSERT INTO inventory.reservation (order_id, sku, quantity) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            order_id,
            sku,
            quantity,
        )
        if inserted != "INSERT 0 1":
            raise Refused("ORDER_EXISTS", f"stock is reserved already for order {order_id}")
        await self.record(connection, key, "action", "reserve_stock", order_id, quantity)
        return {"sku": sku, "quantity": quantity}

    @compensation("release_stock")
    async def release(self, call: Compensation) -> None:
        """Puts the stock of the order back on the shelf."""
        if await self.nothing_to_undo(call):
            return
        order_id, sku, quantity = text(call.json, "order_id"), text(call.json, "sku"), positive(call.json, "quantity")
        await call.connection.execute("DELETE FROM inventory.reservation WHERE order_id = $1", order_id)
        await call.connection.execute("UPDATE inventory.stock SET on_hand = on_hand + $2 WHERE sku = $1", sku, quantity)
        await self.record(call.connection, call.idempotency_key, "compensation", "release_stock", order_id, quantity)

    async def _too_little(self, connection: Any, sku: str, quantity: int) -> Refused:
        on_hand = await connection.fetchval("SELECT on_hand FROM inventory.stock WHERE sku = $1", sku)
        if on_hand is None:
            return Refused("UNKNOWN_SKU", f"there is no sku {sku!r}")
        details = {"sku": sku, "wanted": quantity, "on_hand": on_hand}
        return Refused("OUT_OF_STOCK", f"{quantity} of {sku} are wanted, {on_hand} are left", details=details)
