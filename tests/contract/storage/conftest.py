"""Every store that the suite holds to the protocol's promises."""

from collections.abc import AsyncIterator

import pytest
from support.storage import Backend, definition, memory_backend, postgres_backend


@pytest.fixture(params=["memory", "postgres"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "memory":
        backend = memory_backend()
    else:
        backend = postgres_backend(request.getfixturevalue("postgres_dsn"))
    await backend.open()
    await backend.store.create_definition(definition(), 1_000, 10_000)
    yield backend
    await backend.close()
