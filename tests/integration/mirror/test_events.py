"""`sagad_client.events` on a real Kafka that a real mirror fills."""

import asyncio
import dataclasses
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaTimeoutError
from support.mirror import mirrored, running_mirror, write_sagas
from support.server import eventually

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


async def test_a_part_is_given_to_others_in_time_though_kafka_does_not_answer_to_its_commit(
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
                assert "did not answer to a commit within 3 s" in caplog.text  # half of the session
        assert [(await anext(events)).revision for _ in range(2)] == [1, 2]


async def test_a_reader_does_not_hang_where_the_coordinator_is_away_while_parts_are_shared_out(
    settings: MirrorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await produce(settings, [SagaEvent(saga_id="saga", revision=revision) for revision in (1, 2)])
    reader = consumer(settings, uuid4().hex, commit_interval_s=1000, idle_timeout_s=60)
    async with asyncio.timeout(60), reader as events:
        assert (await anext(events)).revision == 1
        await events.commit()
        back = await no_rejoining(monkeypatch, events)
        monkeypatch.setattr(events, "_share_out_s", 0.5)
        with pytest.raises(KafkaTimeoutError, match=r"not shared out within 0\.5 s"):
            await anext(events)
        monkeypatch.setattr(events, "_share_out_s", 60)
        monkeypatch.setattr(events, "_idle_timeout_s", 0.5)
        assert await rest(events) == []
        monkeypatch.setattr(events, "_idle_timeout_s", 60)
        back.set()
        assert (await anext(events)).revision == 2


async def test_a_reader_that_is_cancelled_loses_nothing_and_does_not_count_as_busy_for_good(
    settings: MirrorSettings,
) -> None:
    await produce(settings, [SagaEvent(saga_id="saga", revision=1)])
    async with asyncio.timeout(60), consumer(settings, uuid4().hex, idle_timeout_s=60) as events:
        assert (await anext(events)).revision == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.01)
        await produce(settings, [SagaEvent(saga_id="saga", revision=2)])
        assert (await anext(events)).revision == 2
        await eventually(lambda: events._consumer._subscription.fetcher_idle_time > 0)


async def test_a_reader_whose_coordinator_is_away_is_told_so_when_it_starts(
    settings: MirrorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Topics(settings).ready()
    reader = consumer(settings, uuid4().hex, request_timeout_s=0.5, session_timeout_s=6)

    async def away(*which: object) -> int:
        raise GroupCoordinatorNotAvailableError

    monkeypatch.setattr(reader._consumer._client, "coordinator_lookup", away)
    monkeypatch.setattr(reader, "_start_s", 1.0)
    async with asyncio.timeout(30):
        with pytest.raises(KafkaTimeoutError, match=r"no part of topic .* within 1 s"):
            await reader.__aenter__()


async def no_rejoining(patch: pytest.MonkeyPatch, events: SagaEvents) -> asyncio.Event:
    """The parts are being shared out anew, which the coordinator ends only when it is back."""
    coordinator, begun, back = events._consumer._coordinator, asyncio.Event(), asyncio.Event()
    join = coordinator._do_rejoin_group

    async def rejoin(subscription: object) -> bool:
        begun.set()
        await back.wait()
        return bool(await join(subscription))

    patch.setattr(coordinator, "_do_rejoin_group", rejoin)
    coordinator.request_rejoin()
    await begun.wait()
    return back


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
