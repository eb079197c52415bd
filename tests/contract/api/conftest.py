"""A server in this process for each test, over every kind of store."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from support.postgres import database
from support.scripted_participant import ScriptedParticipant, scripted_participant
from support.server import Server, running_server

from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.postgres.migrate import migrate
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.postgres.store import PostgresStore
from sagad_server.storage.store import Store


@pytest.fixture(scope="session")
def migrated_database(postgres_server_dsn: str) -> Iterator[str]:
    """The name of a database with the schema and nothing in it, to be copied."""
    with database(postgres_server_dsn) as dsn, ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, migrate(dsn)).result()
        yield urlsplit(dsn).path.lstrip("/")


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    template = request.getfixturevalue("migrated_database")
    with database(request.getfixturevalue("postgres_server_dsn"), template) as dsn:
        yield PostgresStore(PostgresSettings(dsn=dsn))


@pytest.fixture
async def participant() -> AsyncIterator[ScriptedParticipant]:
    async with scripted_participant() as participant:
        yield participant


@pytest.fixture
async def server(store: Store, participant: ScriptedParticipant) -> AsyncIterator[Server]:
    async with running_server(store, participant) as server:
        yield server
