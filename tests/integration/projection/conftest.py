"""A sagad with its mirror, for a model."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.projection_world import World, projection_world


@pytest.fixture
async def world(tmp_path: Path, postgres_dsn: str, bootstrap_servers: str, mongo_url: str) -> AsyncIterator[World]:
    async with projection_world(tmp_path, postgres_dsn, bootstrap_servers, mongo_url) as world:
        yield world
