"""A server in this process for each test, over every kind of store."""

from collections.abc import AsyncIterator

import pytest
from support.scripted_participant import ScriptedParticipant, scripted_participant
from support.server import Server, running_server

from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.store import Store


@pytest.fixture(params=["memory"])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryStore()


@pytest.fixture
async def participant() -> AsyncIterator[ScriptedParticipant]:
    async with scripted_participant() as participant:
        yield participant


@pytest.fixture
async def server(store: Store, participant: ScriptedParticipant) -> AsyncIterator[Server]:
    async with running_server(store, participant) as server:
        yield server
