"""A database for a model, and a sagad with its mirror to fill it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient
from support.projection_world import World, projection_world


@pytest.fixture
async def database(mongo_url: str) -> AsyncIterator[str]:
    """The name of one of the test's own. It, and those whose names begin with it, are gone afterwards."""
    name = f"test-{uuid4().hex}"
    yield name
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        for made in await client.list_database_names():
            if made.startswith(name):
                await client.drop_database(made)


@pytest.fixture
async def world(
    tmp_path: Path, postgres_dsn: str, bootstrap_servers: str, mongo_url: str, database: str
) -> AsyncIterator[World]:
    async with projection_world(tmp_path, postgres_dsn, bootstrap_servers, mongo_url, database) as world:
        yield world
