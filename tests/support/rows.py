"""A hand on the rows that a store writes: what its statements wait for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias, TypeVar

import asyncpg

from sagad_server.storage.postgres import PostgresStore
from sagad_server.storage.rows import Key

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LOCK_ROW = "SELECT FROM sagad.saga WHERE namespace = $1 AND saga_id = $2 FOR UPDATE"
WAITS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1 AND wait_event_type = 'Lock'
"""


@asynccontextmanager
async def holding(dsn: str, statement: str, *arguments: object) -> AsyncIterator[Connection]:
    """Somebody else has run the statement in a transaction that stays open. `ROLLBACK` or the end lets go."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("BEGIN")
        await connection.execute(statement, *arguments)
        yield connection
    finally:
        connection.terminate()


def holding_row(dsn: str, key: Key) -> AbstractAsyncContextManager[Connection]:
    """Somebody else has locked the saga's row, and changes nothing."""
    return holding(dsn, LOCK_ROW, *key)


async def waiter(admin: Connection, application: str = "sagad writer") -> int:
    """The process id of a connection of this name, as soon as it waits for a lock."""
    return int(await until(lambda: admin.fetchval(WAITS, application)))


async def lose_writer(admin: Connection, store: PostgresStore) -> None:
    """Ends the idle writer's connection, and waits until the store could know it."""
    writer = store._writer
    assert writer is not None
    assert writer._connection is not None
    lost = asyncio.Event()
    writer._connection.add_termination_listener(lambda _: lost.set())
    await admin.execute("SELECT pg_terminate_backend($1)", writer._connection.get_server_pid())
    async with asyncio.timeout(10):
        await lost.wait()


async def until(condition: Callable[[], Awaitable[T]]) -> T:
    """What the condition returns, as soon as it is true: PostgreSQL has no events for what it says of itself."""
    async with asyncio.timeout(10):
        while True:
            if value := await condition():
                return value
            await asyncio.sleep(0.01)
