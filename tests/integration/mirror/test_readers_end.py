"""Who reads from Kafka ends when told, and is not taken for cancelled, at whatever turn of the loop after connections
have broken: aiokafka then cancels what it has in flight, and lets that out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.client import ConnectionGroup
from support.server import eventually

from sagad_client.events import SagaEvents
from sagad_server.mirror.kafka import AioKafka
from sagad_server.mirror.settings import MirrorSettings
from sagad_server.mirror.topics import Topics
from sagad_server.projection.settings import ProjectionSettings
from sagad_server.projection.topic import TopicReader

TURNS = 10


@asynccontextmanager
async def saga_events(settings: MirrorSettings) -> AsyncIterator[Any]:
    async with SagaEvents(settings.bootstrap_servers, group_id=uuid4().hex, topic=settings.topic) as events:
        yield events._consumer


@asynccontextmanager
async def projection(settings: MirrorSettings) -> AsyncIterator[Any]:
    where = {"bootstrap_servers": settings.bootstrap_servers, "topic": settings.topic}
    group = {"group_id": uuid4().hex, "member": "only", "mongo_url": "", "database": ""}
    async with TopicReader(ProjectionSettings(**where, **group)) as reader:
        yield reader._consumer


@asynccontextmanager
async def place(settings: MirrorSettings) -> AsyncIterator[Any]:
    """Of a lane, as the mirror reads it."""
    async with AioKafka(settings).consumer(0, "read_committed") as consumer:
        assert await consumer.last_value() is None
        yield consumer._consumer  # type: ignore[attr-defined]


@pytest.mark.parametrize("reader", [saga_events, projection, place])
async def test_a_reader_whose_connections_break_ends_at_every_turn_and_is_not_taken_for_cancelled(
    settings: MirrorSettings, reader: Callable[[MirrorSettings], AbstractAsyncContextManager[Any]]
) -> None:
    await Topics(settings).ready()

    async def read(turns: int) -> None:
        async with reader(settings) as consumer:
            await eventually(lambda: bool(consumer._fetcher and consumer._fetcher._in_flight))
            for (_, group), connection in list(consumer._client._conns.items()):
                if group == ConnectionGroup.DEFAULT:  # with the group's coordinator it still has to speak
                    connection.close()
            for _ in range(turns):
                await asyncio.sleep(0)

    for turns in range(TURNS):
        task = asyncio.create_task(read(turns))
        await asyncio.wait({task}, timeout=10)
        assert task.done(), f"left at turn {turns}, it does not end"
        assert not task.cancelled(), f"left at turn {turns}, it counts as cancelled, and nobody has cancelled it"
        task.result()
