"""WatchSagas on PostgreSQL: what other nodes write, in whatever order they commit."""

import asyncio

from support.rows import holding, until
from support.scripted_participant import scripted_participant
from support.server import chain, running_server

from sagad.v1 import saga_service_pb2 as pb
from sagad_server.engine.records import encode_incident
from sagad_server.storage.journal import Cursor
from sagad_server.storage.postgres import PostgresSettings, PostgresStore

OTHER_NODE = """
INSERT INTO sagad.event (batch_id, revision, time, cause, relay_partition, namespace, saga_id, body)
VALUES (gen_random_uuid(), 3, now(), 12, 7, 'default', 'first', $1)
"""


async def all_is_readable(store: PostgresStore) -> bool:
    return len((await store.read_journal(Cursor(0, 0, ""), 1_024)).rows) == 2


async def test_nothing_overtakes_a_transition_that_another_node_commits_late(postgres_dsn: str) -> None:
    store = PostgresStore(PostgresSettings(dsn=postgres_dsn))
    async with scripted_participant() as participant, running_server(store, participant) as server:
        await server.create(chain("reserve"))
        await server.start(saga_id="first", wait=True)
        await until(lambda: all_is_readable(store))
        stream = server.sagas.WatchSagas(pb.WatchSagasRequest())
        begun = await stream.read()
        async with holding(postgres_dsn, OTHER_NODE, encode_incident("i", "late")) as other:
            await server.start(saga_id="second", wait=True)
            waiting = asyncio.ensure_future(stream.read())
            again = server.sagas.WatchSagas(pb.WatchSagasRequest(resume_token=begun.resume_token))
            caught_up = await again.read()
            await asyncio.wait([waiting], timeout=0.6)  # several reads find nothing that may be told
            assert not waiting.done()
            assert caught_up.HasField("heartbeat")
            await other.execute("COMMIT")
        told = [await waiting, await stream.read(), await stream.read()]
        told_again = [await again.read() for _ in range(3)]

    events = [(message.event.saga_id, message.event.revision) for message in told]
    assert events == [("first", 3), ("second", 1), ("second", 2)]
    assert told_again == told
