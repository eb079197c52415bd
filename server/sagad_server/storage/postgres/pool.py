"""The connections for everything but commits. Their failures are Unavailable."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from sagad_server.domain.errors import Unavailable
from sagad_server.storage.postgres.connect import AWAY, CLOSE_TIMEOUT_S, SESSION, AnyConnection, unavailable
from sagad_server.storage.postgres.settings import PostgresSettings


class Pool:
    """Runs statements, each in a transaction of its own, on any of some connections."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(
            self._settings.dsn,
            min_size=min(self._settings.pool_min_size, self._settings.pool_max_size),
            max_size=self._settings.pool_max_size,
            max_inactive_connection_lifetime=self._settings.max_inactive_connection_lifetime_s,
            timeout=self._settings.connect_timeout_s,
            command_timeout=self._settings.command_timeout_s,
            target_session_attrs=SessionAttribute.read_write,
            server_settings=SESSION | {"application_name": "sagad pool"},
            reset=_leave_as_it_is,
        )

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await pool.close()
            except AWAY:
                pool.terminate()

    def terminate(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    def sizes(self) -> tuple[int, int]:
        """How many connections there are, and how many of them are idle."""
        return (self._pool.get_size(), self._pool.get_idle_size()) if self._pool is not None else (0, 0)

    @asynccontextmanager
    async def connection(self, timeout_s: float | None = None) -> AsyncIterator[AnyConnection]:
        """One connection for several statements; waits for one as long as for a statement."""
        if self._pool is None:
            raise Unavailable("the store is not open")
        with unavailable():
            async with self._pool.acquire(timeout=timeout_s or self._settings.command_timeout_s) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AnyConnection]:
        """One connection in a transaction."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        async with self.connection() as connection:
            return await connection.fetch(sql, *arguments)

    async def fetch_planned(self, sql: str, arguments: Sequence[object]) -> list[asyncpg.Record]:
        """Plans the statement for just these arguments, and forgets it afterwards."""
        async with self.connection() as connection:
            statement = await connection.prepare(sql)
            return await statement.fetch(*arguments)

    async def fetchrow(self, sql: str, *arguments: object) -> asyncpg.Record | None:
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: object, timeout_s: float | None = None) -> Any:
        async with self.connection(timeout_s) as connection:
            return await connection.fetchval(sql, *arguments, timeout=timeout_s)


async def _leave_as_it_is(_: object) -> None:
    """No statement changes its session, so nothing has to be reset, at the price of a round trip, after each."""
