"""Every store that the suite holds to the protocol's promises."""

from collections.abc import AsyncIterator, Iterator

import pytest
from support.postgres import database, execute
from support.storage import EMPTY, Backend, definition, memory_backend, postgres_backend

from sagad_server.storage.postgres import migrate


@pytest.fixture(scope="session")
def migrated_dsn(postgres_server_dsn: str) -> Iterator[str]:
    """One database for the whole suite, because making one takes longer than most of its tests."""
    with database(postgres_server_dsn) as dsn:
        yield dsn


@pytest.fixture(params=["memory", "postgres"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "memory":
        backend = memory_backend()
    else:
        dsn = request.getfixturevalue("migrated_dsn")
        await migrate(dsn)
        execute(dsn, EMPTY)
        backend = postgres_backend(dsn)
    await backend.open()
    await backend.store.create_definition(definition(), 1_000, 10_000)
    yield backend
    await backend.close()
