"""The mirror on a real Kafka and a real PostgreSQL."""

import pytest
from support.mirror import mirrored, running_mirror, write_sagas
from support.server import eventually

from sagad_server.mirror.settings import MirrorSettings
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
