"""One live process a database."""

import asyncio
import subprocess
import sys

import pytest
from support.proxy import proxied
from support.rows import Connection, until
from support.storage import OpenStore, batch, definition, key, start, step

from sagad_server.storage.postgres import PostgresSettings, PostgresStore, lock
from sagad_server.storage.store import NodeAlreadyRunning

SERVE_UNTIL_KILLED = """
import asyncio, sys
from sagad_server.storage.postgres import PostgresSettings, PostgresStore

async def main():
    store = PostgresStore(PostgresSettings(dsn=sys.argv[1]))
    await store.open("victim")
    await store.mark_loading([("default", "suspect")])
    print("open", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

HOLDER = """
SELECT pid FROM pg_locks JOIN pg_database ON pg_locks.database = pg_database.oid
WHERE locktype = 'advisory' AND granted AND datname = current_database()
"""


@pytest.fixture
def quick_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    monkeypatch.setattr(lock, "PREDECESSOR_S", 1)


def serving(dsn: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", SERVE_UNTIL_KILLED, dsn], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    process.stdout.close()
    return process


async def test_a_second_process_is_refused_with_the_names_of_the_first_and_of_the_database(
    postgres_dsn: str, admin: Connection, quick_beat: None
) -> None:
    first = serving(postgres_dsn)
    try:
        database = await admin.fetchval("SELECT current_database()")
        server = await admin.fetchval("SELECT host(inet_server_addr()) || ':' || inet_server_port()")
        said = rf"another sagad \('sagad victim' from 127.0.0.1, since .*\) serves database '{database}' at {server}, "
        with pytest.raises(NodeAlreadyRunning, match=said):
            await PostgresStore(PostgresSettings(dsn=postgres_dsn)).open("second")
    finally:
        first.kill()
        first.wait()


async def test_after_a_sigkill_the_next_process_opens_at_once_and_knows_the_suspects(postgres_dsn: str) -> None:
    victim = serving(postgres_dsn)
    store = PostgresStore(PostgresSettings(dsn=postgres_dsn))
    loop = asyncio.get_running_loop()
    victim.kill()
    began = loop.time()

    node = await store.open("victim")

    assert loop.time() - began < 1
    assert (node.incarnation, node.suspects) == (2, [("default", "suspect")])
    await store.close()
    victim.wait()


async def test_a_lost_lock_is_taken_again(
    open_store: OpenStore, postgres_dsn: str, admin: Connection, quick_beat: None
) -> None:
    store = await open_store(postgres_dsn)
    holder = await admin.fetchval(HOLDER)
    await admin.execute("SELECT pg_terminate_backend($1, 5000)", holder)

    again = await until(lambda: admin.fetchval(HOLDER))

    assert again != holder
    with pytest.raises(NodeAlreadyRunning):
        await PostgresStore(PostgresSettings(dsn=postgres_dsn)).open("second")
    assert (await store.commit(batch(start("a")))).keys == {key("a")}


async def test_who_lost_the_lock_to_another_process_is_told_and_can_write_nothing_that_the_other_took(
    postgres_dsn: str, quick_beat: None
) -> None:
    told = asyncio.Event()
    async with proxied(postgres_dsn) as (proxy, dsn):
        old = PostgresStore(PostgresSettings(dsn=dsn, connect_timeout_s=2), on_lock_lost=told.set)
        await old.open("old")
        await old.create_definition(definition(), 1_000, 10_000)
        await old.commit(batch(start("a")))
        proxy.refuse()
        new = PostgresStore(PostgresSettings(dsn=postgres_dsn))
        await new.open("new")
        assert [loaded.row.saga_id for loaded in await new.claim(10, [])] == ["a"]
        assert not told.is_set()

        proxy.refuse(False)

        async with asyncio.timeout(10):
            await told.wait()
        assert (await old.commit(batch(step("a", 2)))).keys == set()
        await old.close()
        await new.close()
