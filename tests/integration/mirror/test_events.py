"""`sagad_client.events` on a real Kafka that a real mirror fills."""

import asyncio
import dataclasses
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError
from support.mirror import mirrored, running_mirror, write_sagas

from sagad.v1.saga_pb2 import SagaEvent
from sagad_client.events import EventGap, SagaEvents
from sagad_server.mirror.settings import MirrorSettings
from sagad_server.mirror.topics import Topics
from sagad_server.storage.postgres import PostgresStore

NAMES = [f"saga-{number}" for number in range(10)]
Seen = list[tuple[str, int]]


@pytest.fixture(params=["protobuf", "json"])
async def filled(
    request: pytest.FixtureRequest, settings: MirrorSettings, store: PostgresStore, postgres_dsn: str
) -> MirrorSettings:
    """A topic with 3 events of each saga."""
    settings = dataclasses.replace(settings, json=request.param == "json")
    await write_sagas(store, NAMES, 3, {})
    async with running_mirror(settings, store):
        await mirrored(settings.bootstrap_servers, settings.topic, postgres_dsn)
    return settings


def consumer(settings: MirrorSettings, group_id: str, **options: float) -> SagaEvents:
    """One that ends when it has had all."""
    options = {"idle_timeout_s": 0.5} | options
    return SagaEvents(settings.bootstrap_servers, group_id=group_id, topic=settings.topic, **options)


async def rest(events: SagaEvents, most: int = 1000) -> Seen:
    seen: Seen = []
    async for event in events:
        seen.append((event.saga_id, event.revision))
        if len(seen) == most:
            break
    return seen


async def test_a_group_reads_each_sagas_events_in_order_and_goes_on_behind_what_is_done(filled: MirrorSettings) -> None:
    group_id = uuid4().hex
    async with consumer(filled, group_id) as events:
        first = await rest(events, 7)
    async with consumer(filled, group_id) as events:
        second = await rest(events)
    # The seventh was given, and not done: it comes again.
    assert first[-1] in second
    seen = first[:-1] + second
    assert sorted(seen) == sorted((name, revision) for name in NAMES for revision in (1, 2, 3))
    for name in NAMES:
        assert [revision for saga_id, revision in seen if saga_id == name] == [1, 2, 3]
    async with consumer(filled, group_id) as events:
        assert await rest(events) == []


async def test_a_repeat_is_dropped_and_a_gap_is_an_error_behind_which_one_may_go_on(settings: MirrorSettings) -> None:
    await produce(settings, [SagaEvent(saga_id="saga", revision=revision) for revision in (1, 2, 1, 2, 3, 6, 7)])
    async with consumer(settings, uuid4().hex) as events:
        assert [(await anext(events)).revision for _ in range(3)] == [1, 2, 3]
        with pytest.raises(EventGap, match="revision 6 came after 3") as gap:
            await anext(events)
        assert (gap.value.event.revision, gap.value.last_revision) == (6, 3)
        assert [event.revision async for event in events] == [7]


async def test_a_saga_id_that_is_used_again_is_another_saga(settings: MirrorSettings) -> None:
    written = [("first", 1), ("first", 2), ("second", 1), ("first", 2), ("second", 2)]
    await produce(settings, [SagaEvent(saga_id="saga", uid=uid, revision=revision) for uid, revision in written])
    async with consumer(settings, uuid4().hex) as events:
        seen = [(event.uid, event.revision) async for event in events]
    assert seen == [("first", 1), ("first", 2), ("second", 1), ("second", 2)]


async def test_a_reader_ends_though_kafka_does_not_answer_to_its_commit(
    settings: MirrorSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await produce(settings, [SagaEvent(saga_id="saga", revision=revision) for revision in (1, 2)])
    group_id = uuid4().hex
    reader = SagaEvents(settings.bootstrap_servers, group_id=group_id, topic=settings.topic, commit_interval_s=1000)
    async with asyncio.timeout(60), reader as events:
        assert [(await anext(events)).revision for _ in range(2)] == [1, 2]
        silence(monkeypatch, events)
    assert "did not answer to a commit within 0.5 s" in caplog.text
    async with SagaEvents(settings.bootstrap_servers, group_id=group_id, topic=settings.topic) as events:
        assert [(await anext(events)).revision for _ in range(2)] == [1, 2]


async def test_a_commit_that_kafka_does_not_answer_is_an_error_that_loses_nothing(
    settings: MirrorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await produce(settings, [SagaEvent(saga_id="saga", revision=revision) for revision in (1, 2)])
    group_id = uuid4().hex
    reader = consumer(settings, group_id, commit_interval_s=0, idle_timeout_s=60)
    async with asyncio.timeout(60), reader as events:
        await anext(events)
        with monkeypatch.context() as away:
            silence(away, events)
            with pytest.raises(KafkaTimeoutError, match="did not answer to a commit within"):
                await events.commit()
            with pytest.raises(KafkaTimeoutError, match="did not answer to a commit within"):
                await anext(events)
        assert (await anext(events)).revision == 2
        await events.commit()
    async with consumer(settings, group_id) as events:
        assert await rest(events) == []


async def test_a_part_is_given_to_others_though_kafka_does_not_answer_to_its_commit(
    settings: MirrorSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await produce(settings, [SagaEvent(saga_id="saga", revision=revision) for revision in (1, 2)])
    group_id = uuid4().hex
    reader = consumer(settings, group_id, commit_interval_s=1000, session_timeout_s=6, idle_timeout_s=60)
    async with asyncio.timeout(60), reader as events:
        assert [(await anext(events)).revision for _ in range(2)] == [1, 2]
        with monkeypatch.context() as away:
            silence(away, events)
            async with consumer(settings, group_id):  # the parts are shared out anew
                assert "did not answer to a commit within 0.5 s" in caplog.text
        assert [(await anext(events)).revision for _ in range(2)] == [1, 2]


def silence(patch: pytest.MonkeyPatch, events: SagaEvents) -> None:
    """Kafka answers to no commit of this reader."""
    patch.setattr(events, "_request_timeout_s", 0.5)
    patch.setattr(events._consumer, "commit", lambda offsets: asyncio.Event().wait())


async def produce(settings: MirrorSettings, events: list[SagaEvent]) -> None:
    """As no mirror would."""
    await Topics(settings).ready()
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    try:
        for event in events:
            await producer.send_and_wait(settings.topic, event.SerializeToString(), partition=0)
    finally:
        await producer.stop()
