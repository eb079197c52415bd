"""The example participant `payment`: takes money for orders, in whole cents."""

from collections.abc import Mapping
from typing import Any

from sagad_examples.fields import positive, text
from sagad_examples.service import Effect, Service
from sagad_participant import Action, Compensation, Refused, action, compensation


class Payment(Service):
    """Accounts of customers; a charge moves money from an account to an order."""

    name = "payment"

    @property
    def effects(self) -> Mapping[str, Effect]:
        return {"charge_card": self._charge}

    @action("charge_card")
    async def charge(self, call: Action) -> object:
        """Input: order_id, customer, amount_cents. Refuses with INSUFFICIENT_FUNDS, UNKNOWN_CUSTOMER and so on."""
        return await self.act(call)

    async def _charge(self, connection: Any, key: str, order: Any) -> dict[str, object]:
        order_id, customer, cents = text(order, "order_id"), text(order, "customer"), positive(order, "amount_cents")
        left = await connection.fetchval(
            "UPDATE payment.account SET balance_cents = balance_cents - $2"
            " WHERE customer = $1 AND balance_cents >= $2 RETURNING balance_cents",
            customer,
            cents,
        )
        if left is None:
            raise await self._too_little(connection, customer, cents)
        inserted = await connection.execute(
            "INSERT INTO payment.charge (order_id, customer, amount_cents) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            order_id,
            customer,
            cents,
        )
        if inserted != "INSERT 0 1":
            raise Refused("ORDER_EXISTS", f"order {order_id} is paid already")
        await self.record(connection, key, "action", "charge_card", order_id, cents)
        return {"charged_cents": cents}

    @compensation("refund_card")
    async def refund(self, call: Compensation) -> None:
        """Gives the money of the order back."""
        if await self.nothing_to_undo(call):
            return
        order, connection = call.json, call.connection
        order_id, customer, cents = text(order, "order_id"), text(order, "customer"), positive(order, "amount_cents")
        await connection.execute("DELETE FROM payment.charge WHERE order_id = $1", order_id)
        await connection.execute(
            "UPDATE payment.account SET balance_cents = balance_cents + $2 WHERE customer = $1", customer, cents
        )
        await self.record(connection, call.idempotency_key, "compensation", "refund_card", order_id, cents)

    async def _too_little(self, connection: Any, customer: str, cents: int) -> Refused:
        balance = await connection.fetchval("SELECT balance_cents FROM payment.account WHERE customer = $1", customer)
        if balance is None:
            return Refused("UNKNOWN_CUSTOMER", f"there is no customer {customer!r}")
        details = {"wanted_cents": cents, "balance_cents": balance}
        return Refused("INSUFFICIENT_FUNDS", f"{cents} cents are wanted, {customer} has {balance}", details=details)
