"""WatchSagas on PostgreSQL: what other nodes write, in whatever order they commit."""

import asyncio
import itertools
from contextlib import AsyncExitStack

from support.rows import holding, until
from support.scripted_participant import scripted_participant
from support.server import chain, running_server
from support.watching import numbers, watching

from sagad_server.engine.records import encode_incident
from sagad_server.storage.journal import Cursor
from sagad_server.storage.postgres import PostgresSettings, PostgresStore

COUNT = 90
"""Events of all sagas of three nodes."""

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
        stream = await watching(server)
        async with holding(postgres_dsn, OTHER_NODE, encode_incident("i", "late")) as other:
            await server.start(saga_id="second", wait=True)
            waiting = asyncio.ensure_future(stream.take(3))
            again = await watching(server, stream.token)
            assert await again.until_heartbeat() == []
            await asyncio.wait([waiting], timeout=0.6)  # several reads find nothing that may be told
            assert not waiting.done()
            await other.execute("COMMIT")
        events = await waiting
        assert await again.take(3) == events

    assert numbers(events) == [("first", 3), ("second", 1), ("second", 2)]


async def test_each_node_tells_the_transitions_of_all_in_one_order_and_takes_the_tokens_of_the_others(
    postgres_dsn: str,
) -> None:
    async with scripted_participant() as participant, AsyncExitStack() as stack:
        nodes = []
        for name in ("one", "two", "three"):
            store = PostgresStore(PostgresSettings(dsn=postgres_dsn))
            nodes.append(await stack.enter_async_context(running_server(store, participant, node={"name": name})))
        await nodes[0].create(chain("reserve", "charge"))
        steady = [await watching(node) for node in nodes]

        async def wander(token: str) -> list[tuple[str, int]]:
            """Watches from node to node, at each for a few events only."""
            seen: list[tuple[str, int]] = []
            for node in itertools.cycle(nodes):
                stream = await watching(node, token)
                seen += numbers(await stream.take(min(7, COUNT - len(seen))))
                stream.call.cancel()
                token = stream.token
                if len(seen) == COUNT:
                    return seen
            raise AssertionError

        wandering = asyncio.create_task(wander(steady[0].token))
        sagas = [f"{place}-{number}" for place in range(3) for number in range(10)]
        starting = [nodes[int(saga[0])].start(saga_id=saga, wait=True) for saga in sagas]
        await asyncio.gather(*starting)
        first, *others = [numbers(await stream.take(COUNT)) for stream in steady]
        wandered = await wandering

    assert sorted(first) == sorted((saga, revision) for saga in sagas for revision in (1, 2, 3))
    assert all(other == first for other in [*others, wandered])
