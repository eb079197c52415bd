"""Stores on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from support.storage import OpenStore, definition

from sagad_server.storage.postgres import PostgresSettings, PostgresStore


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """Opens a store with short timeouts on a DSN; closes it after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(dsn: str, writer_silence_s: float = 1) -> PostgresStore:
            settings = PostgresSettings(
                dsn=dsn, pool_max_size=2, command_timeout_s=1, connect_timeout_s=2, writer_silence_s=writer_silence_s
            )
            store = PostgresStore(settings)
            stack.push_async_callback(store.close)
            await store.open("node")
            await store.create_definition(definition(), 1_000, 10_000)
            return store

        yield open_one


@pytest.fixture
async def store(open_store: OpenStore, postgres_dsn: str) -> PostgresStore:
    return await open_store(postgres_dsn)


@pytest.fixture
async def admin(postgres_dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Another connection to the same database."""
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()
