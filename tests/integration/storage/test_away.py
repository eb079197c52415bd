"""Reads and rare writes while the database is away, or does not answer."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from support.proxy import proxied
from support.rows import Connection, holding
from support.storage import DEFINITION_ID, NAMESPACE, VERSION, OpenStore, batch, definition, key, start

from sagad_server.domain.errors import Unavailable
from sagad_server.embedded import EmbeddedPostgres
from sagad_server.storage.postgres import PostgresSettings, PostgresStore
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Store

ALL = SagaFilter()

CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "claim": lambda store: store.claim(1, []),
    "claim_one": lambda store: store.claim_one(key("a")),
    "mark_loading": lambda store: store.mark_loading([key("a")]),
    "count_crash": lambda store: store.count_crash(key("a")),
    "park": lambda store: store.park(key("a"), revision=1, epoch=1, reason=7, incident_id="i", event=b""),
    "load": lambda store: store.load(key("a")),
    "get_row": lambda store: store.get_row(key("a")),
    "list_sagas": lambda store: store.list_sagas("default", ALL, None, 1, 1),
    "list_events": lambda store: store.list_events(key("a"), 0, 1),
    "stats": lambda store: store.stats("default", ALL, 10, 10),
    "count_by_state": lambda store: store.count_by_state(),
    "stranded": lambda store: store.stranded(),
    "purge": lambda store: store.purge(None, ALL, timedelta(0), 1, dry_run=False),
    "forget": lambda store: store.forget(timedelta(0), 1),
    "create_definition": lambda store: store.create_definition(definition(version="2.0.0"), 10, 100),
    "get_definition": lambda store: store.get_definition(NAMESPACE, DEFINITION_ID, VERSION),
    "list_definitions": lambda store: store.list_definitions(NAMESPACE),
    "set_definition_active": lambda store: store.set_definition_active(NAMESPACE, DEFINITION_ID, VERSION, active=True),
    "delete_definition": lambda store: store.delete_definition(NAMESPACE, DEFINITION_ID, "9.0.0"),
    "secret": lambda store: store.secret("s"),
    "info": lambda store: store.info(),
    "ping": lambda store: store.ping(),
}


async def refusals(store: Store) -> dict[str, bool]:
    """The calls that raise Unavailable, and whether they say when to try again."""
    refused = {}
    for name, call in CALLS.items():
        try:
            await call(store)
        except Unavailable as error:
            refused[name] = bool(error.retry_after_ms)
    return refused


async def test_every_call_is_unavailable_while_the_server_is_stopped_and_works_after_its_start(
    open_store: OpenStore, own_postgres: EmbeddedPostgres
) -> None:
    store = await open_store(own_postgres.dsn)
    assert await refusals(store) == {}
    await asyncio.to_thread(own_postgres.stop)

    assert await refusals(store) == dict.fromkeys(CALLS, True)

    await asyncio.to_thread(own_postgres.start)
    assert await refusals(store) == {}
    assert (await store.commit(batch(start("b")))).keys == {key("b")}


async def test_open_is_unavailable_while_the_server_is_stopped_and_may_be_repeated(
    own_postgres: EmbeddedPostgres,
) -> None:
    store = PostgresStore(PostgresSettings(dsn=own_postgres.dsn))
    await asyncio.to_thread(own_postgres.stop)
    with pytest.raises(Unavailable):
        await store.open("node")

    await asyncio.to_thread(own_postgres.start)

    assert (await store.open("node")).incarnation == 1
    await store.close()


async def test_a_read_that_gets_no_answer_is_unavailable_in_bounded_time_and_the_next_one_works(
    open_store: OpenStore, postgres_dsn: str
) -> None:
    async with proxied(postgres_dsn) as (proxy, dsn):
        store = await open_store(dsn)
        proxy.blackhole()
        began = asyncio.get_running_loop().time()

        with pytest.raises(Unavailable, match="no answer in time"):
            await store.get_row(key("a"))

        assert asyncio.get_running_loop().time() - began < 5
        assert await store.get_row(key("a")) is None


async def test_open_ends_in_bounded_time_though_nobody_answers(postgres_dsn: str) -> None:
    async with proxied(postgres_dsn) as (proxy, dsn):
        store = PostgresStore(PostgresSettings(dsn=dsn, connect_timeout_s=1, command_timeout_s=1))
        proxy.lose_answer_to(b"pg_advisory_lock")

        async with asyncio.timeout(10):
            with pytest.raises(Unavailable, match="no answer in time"):
                await store.open("node")


async def test_close_ends_in_bounded_time_though_nobody_answers(postgres_dsn: str) -> None:
    async with proxied(postgres_dsn) as (proxy, dsn):
        store = PostgresStore(PostgresSettings(dsn=dsn, connect_timeout_s=1, writer_silence_s=1))
        await store.open("node")
        proxy.blackhole()

        async with asyncio.timeout(10):
            await store.close()


async def test_ping_is_unavailable_where_nothing_can_be_written(
    open_store: OpenStore, postgres_dsn: str, admin: Connection
) -> None:
    store = await open_store(postgres_dsn)
    async with holding(postgres_dsn, "LOCK TABLE sagad.nodes IN EXCLUSIVE MODE"):
        with pytest.raises(Unavailable):
            await store.ping()

    await store.ping()


async def test_a_message_never_holds_the_password(postgres_server_dsn: str) -> None:
    dsn = "postgresql://nobody:s3cret@127.0.0.1:1/none"
    settings = PostgresSettings(dsn=dsn)
    with pytest.raises(Unavailable) as refused:
        await PostgresStore(settings).open("node")

    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(settings)
