"""A Kafka for the tests of the mirror, and a store with a definition."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from support.storage import definition

from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.postgres import PostgresSettings, PostgresStore


@pytest.fixture
def settings(bootstrap_servers: str) -> MirrorSettings:
    """Of a mirror into a topic of its own, that is quick to see who has died."""
    return MirrorSettings(bootstrap_servers=bootstrap_servers, topic=f"test-{uuid4().hex}", lease_s=1, interval_s=0.02)


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(PostgresSettings(dsn=postgres_dsn, pool_max_size=4))
    await store.open("node")
    await store.create_definition(definition(), 1_000, 10_000)
    yield store
    await store.close()
