"""The mirror on a real Kafka and a real PostgreSQL."""

from support.mirror import mirrored, running_mirror, write_sagas

from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.postgres import PostgresStore

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
