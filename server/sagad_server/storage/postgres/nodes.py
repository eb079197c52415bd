"""The registrations of nodes in the database."""

from uuid import UUID, uuid4

import asyncpg

from sagad_server.storage.nodes import Node
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.rows import Key

NODES = load_queries("nodes")


async def register(pool: Pool, node_name: str, address: str) -> Node:
    """See `Store.register`."""
    instance_id = uuid4()
    async with pool.transaction() as connection:
        await connection.execute(NODES["one_at_a_time"], node_name)
        dead = await connection.fetch(NODES["replace"], node_name)
        incarnation = await connection.fetchval(NODES["register"], instance_id, node_name, address)
        await connection.execute(NODES["forget_dead"])
    return Node(instance_id, node_name, incarnation, [key for row in dead for key in _loading(row)])


async def declare_dead(pool: Pool, instance_id: UUID, lease: int) -> list[Key] | None:
    """See `Store.declare_dead`."""
    row = await pool.fetchrow(NODES["declare_dead"], instance_id, lease)
    return _loading(row) if row is not None else None


def _loading(record: asyncpg.Record) -> list[Key]:
    return list(zip(record["loading_namespaces"], record["loading_saga_ids"], strict=True))
