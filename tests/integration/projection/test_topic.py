"""Topics that are not as the mirror leaves them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from google.protobuf import json_format
from prometheus_client import CollectorRegistry
from support.projection import ProjectProcess, documents
from support.server import eventually

from sagad.v1.saga_pb2 import SAGA_STATE_RUNNING, SagaEvent
from sagad_server.projection.faults import EventsMissing, ForeignRecord
from sagad_server.projection.metrics import ProjectionMetrics
from sagad_server.projection.projector import Projector
from sagad_server.projection.settings import ProjectionSettings
from sagad_server.system import SystemClock, SystemRandom


@pytest.fixture
def settings(bootstrap_servers: str, mongo_url: str, database: str) -> ProjectionSettings:
    return ProjectionSettings(
        bootstrap_servers=bootstrap_servers,
        topic=database,
        group_id=database,
        member="only",
        mongo_url=mongo_url,
        database=database,
    )


@asynccontextmanager
async def projecting(settings: ProjectionSettings) -> AsyncIterator[tuple[Projector, "asyncio.Task[None]"]]:
    projector = Projector(settings, SystemClock(), SystemRandom(), ProjectionMetrics(CollectorRegistry()))
    running = asyncio.create_task(projector.run())
    try:
        yield projector, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await projector.close()


@dataclass(frozen=True)
class Record:
    value: bytes
    ce_id: str
    content_type: str = "application/protobuf"


def record(revision: int, uid: str = "a") -> Record:
    event = SagaEvent(namespace="default", saga_id="order-1", revision=revision, state=SAGA_STATE_RUNNING)
    event.time.FromSeconds(1_000_000 + revision)
    return Record(event.SerializeToString(), f"{uid}/{revision}")


async def make_topic(settings: ProjectionSettings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        await admin.start()
        await admin.create_topics([NewTopic(settings.topic, 1, 1)])
    finally:
        await admin.close()


async def write(settings: ProjectionSettings, records: Iterable[Record]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    try:
        for each in records:
            headers = [("ce_id", each.ce_id.encode()), ("content-type", each.content_type.encode())]
            await producer.send_and_wait(settings.topic, each.value, headers=headers, partition=0)
    finally:
        await producer.stop()


async def revisions(settings: ProjectionSettings) -> dict[str, int]:
    found = await documents(settings.mongo_url, settings.database)
    return {uid: each["revision"] for uid, each in found.items()}


async def test_a_topic_that_is_not_there_yet_is_waited_for(settings: ProjectionSettings) -> None:
    async with projecting(settings) as (projector, _):
        await eventually(lambda: "there is no topic" in projector.fault)
        await make_topic(settings)
        await write(settings, [record(1), record(2), record(1, "b")])
        while await revisions(settings) != {"a": 2, "b": 1}:  # noqa: ASYNC110 - by its own clock
            await asyncio.sleep(0.05)
        await eventually(lambda: projector.fault == "")


async def test_a_topic_of_json_gives_the_same_model(settings: ProjectionSettings) -> None:
    await make_topic(settings)
    binary = [record(1), record(2)]
    as_json = [
        Record(json_format.MessageToJson(SagaEvent.FromString(each.value)).encode(), f"b/{number}", "application/json")
        for number, each in enumerate(binary, 1)
    ]
    await write(settings, [*binary, *as_json])
    async with projecting(settings):
        while await revisions(settings) != {"a": 2, "b": 2}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    first, second = (await documents(settings.mongo_url, settings.database)).values()
    assert {**first, "_id": ""} == {**second, "_id": ""}


async def test_a_gap_stops_the_projection_until_it_is_told_to_go_on_without(
    settings: ProjectionSettings, tmp_path: Path
) -> None:
    await make_topic(settings)
    await write(settings, [record(1), record(2), record(5), record(6)])
    async with projecting(settings) as (_, running):
        with pytest.raises(EventsMissing, match="revision 5 came after 2"):
            await running
    assert await revisions(settings) == {}
    process = ProjectProcess(
        tmp_path, settings.bootstrap_servers, settings.topic, settings.mongo_url, settings.database
    )
    assert await asyncio.to_thread(process.child.wait, 60) == 1
    assert "sagad: saga default/order-1 (a): revision 5 came after 2" in process.log()
    assert "projection.gaps=mark" in process.log()
    async with projecting(replace(settings, marks_gaps=True)):
        while await revisions(settings) != {"a": 6}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    (document,) = (await documents(settings.mongo_url, settings.database)).values()
    assert not document["complete"]


FOREIGN = [
    Record(b"\xff", "a/1"),
    Record(b"\xff", "a/1", "application/json"),
    Record(record(1).value, "a/2"),
    Record(record(1).value, ""),
]


@pytest.mark.parametrize("foreign", FOREIGN)
async def test_what_the_mirror_has_not_written_stops_the_projection(
    settings: ProjectionSettings, foreign: Record
) -> None:
    await make_topic(settings)
    await write(settings, [foreign])
    async with projecting(settings) as (_, running):
        with pytest.raises(ForeignRecord, match=f"{settings.topic}, partition 0, offset 0 is no event of the mirror"):
            await running
