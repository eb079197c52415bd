"""Each test that asks for a world runs with every barrier."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from support.barrier_worlds import MemoryWorld, PostgresWorld, RedisWorld, World

from sagad_participant import Participant
from sagad_participant.postgres import keep_session


@pytest_asyncio.fixture
async def postgres_world(postgres_dsn: str) -> AsyncIterator[PostgresWorld]:
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=6, reset=keep_session) as pool:
        yield await PostgresWorld.create(pool)


@pytest_asyncio.fixture
async def redis_world(redis_url: str) -> AsyncIterator[RedisWorld]:
    async with Redis.from_url(redis_url) as client:
        world = RedisWorld.create(client)
        yield world
        await world.delete()


@pytest.fixture(params=["memory", "postgres", "redis"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return MemoryWorld()
    world: World = request.getfixturevalue(f"{request.param}_world")
    return world


@pytest.fixture
def tested(world: World) -> Participant:
    """A participant without handlers."""
    return Participant("tested", barrier=world.barrier)
