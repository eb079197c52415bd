"""The mirror on a real Kafka and a real PostgreSQL."""

import asyncio
import dataclasses
from datetime import UTC

import pytest
from support.mirror import mirrored, running_mirror, write_sagas
from support.server import eventually

from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.mirror import Start
from sagad_server.storage.postgres import PostgresStore
from sagad_server.storage.postgres.mirror import MirrorTables

NAMES = [f"saga-{number}" for number in range(40)]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_every_event_of_the_journal_comes_to_the_topic_once_and_each_sagas_in_order(
    settings: MirrorSettings, store: PostgresStore, postgres_dsn: str
) -> None:
    await write_sagas(store, NAMES[:20], 5, {"traceparent": TRACE})
    async with running_mirror(settings, store):
        await write_sagas(store, NAMES[20:], 5, {})
        records = await mirrored(settings.bootstrap_servers, settings.topic, postgres_dsn)
    assert len(records) == 200
    traced = {record.key for record in records if record.headers.get("traceparent") == TRACE}
    assert traced == {f"default/{name}" for name in NAMES[:20]}


async def test_a_mirror_that_fails_says_why_and_goes_on_by_itself(
    settings: MirrorSettings, store: PostgresStore, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_sagas(store, NAMES[:5], 2, {})
    with monkeypatch.context() as broken:
        broken.setattr(MirrorTables, "lanes", _raise)
        async with running_mirror(settings, store) as mirror:
            await eventually(lambda: "of the test" in mirror.fault)
            broken.undo()
            await mirrored(settings.bootstrap_servers, settings.topic, postgres_dsn)
            await eventually(lambda: mirror.fault == "")


async def _raise(*_: object) -> None:
    raise RuntimeError("of the test")


async def test_a_record_is_a_cloud_event_with_the_id_that_it_has_in_every_topic(
    settings: MirrorSettings, store: PostgresStore, postgres_dsn: str
) -> None:
    await write_sagas(store, NAMES[:1], 2, {})
    found = []
    for topic in (settings.topic, f"{settings.topic}-again"):
        to = dataclasses.replace(settings, topic=topic, json=topic != settings.topic)
        async with running_mirror(to, store):
            found.append(await mirrored(to.bootstrap_servers, topic, postgres_dsn))
    first, again = found
    assert [record.event for record in first] == [record.event for record in again]
    assert [record.headers["ce_id"] for record in first] == [record.headers["ce_id"] for record in again]
    for record, content_type in ((first[0], "application/protobuf"), (again[0], "application/json")):
        assert record.headers == {
            "ce_specversion": "1.0",
            "ce_id": record.headers["ce_id"],
            "ce_source": "/sagad",
            "ce_type": "sagad.v1.SagaEvent",
            "ce_subject": "default/saga-0",
            "ce_time": record.event.time.ToDatetime(UTC).isoformat(),
            "content-type": content_type,
        }
        assert record.headers["ce_id"] == f"{record.event.uid}/1"


async def test_a_topic_that_is_not_this_journals_stops_the_mirror_until_an_operator_says_where_to_go_on(
    settings: MirrorSettings, store: PostgresStore, postgres_dsn: str
) -> None:
    topic, tables = settings.topic, store.mirror()
    await write_sagas(store, NAMES, 2, {})
    async with running_mirror(settings, store):
        await mirrored(settings.bootstrap_servers, topic, postgres_dsn)
    await tables.remove(topic)  # as if the database were another one
    async with running_mirror(settings, store):
        while not all(lag.lane.fault for lag in await tables.lag(topic)) or not await tables.lanes(topic):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert {lag.lane.fault for lag in await tables.lag(topic)} == {
            "Kafka has events of another database, or of a mirror that was removed, in this topic"
        }
        await write_sagas(store, ["late"], 2, {})  # sagas go on
        assert len(await tables.resume(topic, range(8), Start.CURSOR)) == 8
        records = await mirrored(settings.bootstrap_servers, topic, postgres_dsn)
    assert len(records) == 2 * len(NAMES) + 2
