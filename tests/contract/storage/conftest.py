"""Every store that the suite holds to the protocol's promises."""

from collections.abc import AsyncIterator

import pytest
from support.storage import Backend, definition, memory_backend


@pytest.fixture(params=["memory"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    backend = memory_backend()
    await backend.open()
    await backend.store.create_definition(definition(), 1_000, 10_000)
    yield backend
    await backend.close()
