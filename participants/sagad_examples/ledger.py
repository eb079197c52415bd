"""Judges what orders have left behind in the examples' tables: for demos and tests. Counts effects, not calls."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

STOCK = {**dict.fromkeys(("apple", "cherry", "fig", "pear", "plum", "quince"), 100_000), "unicorn": 0}
"""Opening stock by sku; of the last one there never is any."""

ACCOUNTS = {**dict.fromkeys(("alice", "bob", "carol", "dave", "erin", "frank"), 1_000_000_000), "pauper": 0}
"""Opening balances in cents by customer; the last one can pay nothing."""

_NEEDED = ("reserve_stock", "charge_card", "create_shipment")
_OPTIONAL = ("notify_customer",)

_EFFECTS = """
SELECT position, idempotency_key, kind, name, order_id FROM inventory.effect UNION ALL
SELECT position, idempotency_key, kind, name, order_id FROM payment.effect UNION ALL
SELECT position, idempotency_key, kind, name, order_id FROM shipping.effect
"""
_STANDING = """
SELECT order_id, array_agg(name) AS names FROM (
    SELECT order_id, 'reserve_stock' AS name FROM inventory.reservation UNION ALL
    SELECT order_id, 'charge_card' FROM payment.charge UNION ALL
    SELECT order_id, 'create_shipment' FROM shipping.shipment UNION ALL
    SELECT order_id, 'notify_customer' FROM shipping.notice
) AS standing GROUP BY order_id
"""
_SUMS = """
SELECT (SELECT coalesce(sum(opening), 0)::bigint FROM inventory.stock) AS opening_stock,
       (SELECT coalesce(sum(on_hand), 0)::bigint FROM inventory.stock) AS stock_on_hand,
       (SELECT coalesce(sum(quantity), 0)::bigint FROM inventory.reservation) AS stock_reserved,
       (SELECT coalesce(sum(opening_cents), 0)::bigint FROM payment.account) AS opening_cents,
       (SELECT coalesce(sum(balance_cents), 0)::bigint FROM payment.account) AS cents_on_accounts,
       (SELECT coalesce(sum(amount_cents), 0)::bigint FROM payment.charge) AS cents_taken
"""
_ORDERS = """
SELECT order_id FROM inventory.effect UNION
SELECT order_id FROM payment.effect UNION
SELECT order_id FROM shipping.effect
"""

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Balance:
    """Stock and money at one instant."""

    opening_stock: int
    stock_on_hand: int
    stock_reserved: int
    opening_cents: int
    cents_on_accounts: int
    cents_taken: int
    orders_done: int
    """Orders with stock reserved, money taken and a shipment."""
    orders_partly_done: int
    """Orders with some of that: they are under way, or lost."""
    orders_undone: int
    """Orders that had effects, of which nothing has remained."""

    @property
    def adds_up(self) -> bool:
        """Nothing was lost or made, to the piece and to the cent."""
        return not self.violations()

    def violations(self) -> list[str]:
        """What does not add up, for people."""
        found = []
        if self.opening_stock != self.stock_on_hand + self.stock_reserved:
            found.append(
                f"stock: opened with {self.opening_stock}, but {self.stock_on_hand} on hand and "
                f"{self.stock_reserved} reserved make {self.stock_on_hand + self.stock_reserved}"
            )
        if self.opening_cents != self.cents_on_accounts + self.cents_taken:
            found.append(
                f"money: opened with {self.opening_cents} cents, but {self.cents_on_accounts} on accounts and "
                f"{self.cents_taken} taken make {self.cents_on_accounts + self.cents_taken}"
            )
        return found


@dataclass(frozen=True, slots=True)
class _Effect:
    position: int
    """Orders the effects of one participant."""
    key: str
    kind: str
    name: str
    order_id: str


async def balance(dsn: str) -> Balance:
    """The balance at one instant. Exact at any time; orders are partly done while their sagas run."""
    async with _snapshot(dsn) as connection:
        return await _balance(connection)


async def check(dsn: str, ended: Mapping[str, bool]) -> list[str]:
    """What is wrong, for people; empty if all is well.

    ended: for every order that was ever started, whether its saga succeeded (else it was compensated). All sagas must
    have ended. Of an order that succeeded each effect must be there once; of others nothing may have remained; no
    effect may have happened twice for a key, or an action's after its compensation's; stock and money must add up.
    """
    async with _snapshot(dsn) as connection:
        effects = [_Effect(*row) for row in await connection.fetch(_EFFECTS)]
        standing = await _standing(connection)
        found = (await _balance(connection)).violations()
    return [*found, *_by_key(effects), *_by_order(effects, standing, ended)]


async def seed(dsn: str) -> None:
    """Adds the opening stock and accounts that are missing."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.executemany(
            "INSERT INTO inventory.stock (sku, opening, on_hand) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING",
            list(STOCK.items()),
        )
        await connection.executemany(
            "INSERT INTO payment.account (customer, opening_cents, balance_cents) VALUES ($1, $2, $2)"
            " ON CONFLICT DO NOTHING",
            list(ACCOUNTS.items()),
        )
    finally:
        await connection.close()


async def reset(dsn: str) -> None:
    """Forgets everything, the barriers too, and opens anew. Let no saga run meanwhile."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "TRUNCATE inventory.stock, inventory.reservation,"
            " inventory.effect, inventory.todo, inventory.sagad_barrier,"
            " payment.account, payment.charge, payment.effect, payment.todo, payment.sagad_barrier,"
            " shipping.shipment, shipping.notice, shipping.effect, shipping.todo, shipping.sagad_barrier"
            " RESTART IDENTITY"
        )
    finally:
        await connection.close()
    await seed(dsn)


@asynccontextmanager
async def _snapshot(dsn: str) -> AsyncIterator[_Connection]:
    """All queries see the same instant."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    finally:
        await connection.close()


async def _balance(connection: _Connection) -> Balance:
    sums = await connection.fetchrow(_SUMS)
    assert sums is not None
    standing = await _standing(connection)
    orders = {row["order_id"] for row in await connection.fetch(_ORDERS)}
    done = sum(set(_NEEDED) <= set(names) for names in standing.values())
    return Balance(
        **sums,
        orders_done=done,
        orders_partly_done=len(standing) - done,
        orders_undone=len(orders - standing.keys()),
    )


async def _standing(connection: _Connection) -> dict[str, list[str]]:
    """What stands in the tables, by order: the names of the actions that put it there."""
    return {row["order_id"]: sorted(row["names"]) for row in await connection.fetch(_STANDING)}


def _by_key(effects: Sequence[_Effect]) -> Iterator[str]:
    """No effect twice for a key; no compensation without its action, nor before it."""
    positions: dict[tuple[str, str], int] = {}
    for effect in sorted(effects, key=lambda effect: effect.position):
        if (effect.key, effect.kind) in positions:
            yield f"order {effect.order_id}: {effect.name} had its effect twice with the key {effect.key}"
        elif effect.kind == "action" and (effect.key, "compensation") in positions:
            yield f"order {effect.order_id}: {effect.name} had its effect after it was undone (key {effect.key})"
        elif effect.kind == "compensation" and (effect.key, "action") not in positions:
            yield f"order {effect.order_id}: {effect.name} undid what had not happened (key {effect.key})"
        positions[effect.key, effect.kind] = effect.position


def _by_order(
    effects: Sequence[_Effect], standing: Mapping[str, Sequence[str]], ended: Mapping[str, bool]
) -> Iterator[str]:
    """Each order is completely done or completely undone, as its saga ended."""
    counts = Counter((effect.order_id, effect.name) for effect in effects if effect.kind == "action")
    for order_id in sorted({effect.order_id for effect in effects} | standing.keys()):
        if order_id not in ended:
            yield f"order {order_id}: it has had effects, and nobody knows of its saga"
    for order_id, succeeded in ended.items():
        names = standing.get(order_id, [])
        if not succeeded:
            if names:
                yield f"order {order_id}: it was compensated, and there still is {', '.join(names)}"
            continue
        for name in _NEEDED:
            if name not in names:
                yield f"order {order_id}: it succeeded, and there is no {name}"
        for name in (*_NEEDED, *_OPTIONAL):
            if (count := counts[order_id, name]) > 1:
                yield f"order {order_id}: it succeeded, and {name} had its effect {count} times"
