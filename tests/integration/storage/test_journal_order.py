"""The order in which the journal is read, on PostgreSQL, where what was written first may be committed last."""

import asyncio
import re
import sys
from datetime import timedelta

import pytest
from support.rows import Connection, holding
from support.storage import OpenStore, batch, end, start, step

from sagad_server.storage.journal import Cursor, JournalRow
from sagad_server.storage.postgres import PostgresSettings, PostgresStore, migrate
from sagad_server.storage.postgres.connect import connect
from sagad_server.storage.postgres.journal import END, READ
from sagad_server.storage.postgres.migrate import known_migrations
from sagad_server.storage.selection import SagaFilter

BEGINNING = Cursor(0, 0, "")
LIMIT = 1_024

WRITE_EVENT = """
INSERT INTO sagad.event (batch_id, revision, time, cause, relay_partition, namespace, saga_id, body)
VALUES (gen_random_uuid(), 2, now(), 1, 7, 'default', 'a', '')
"""

FILL = """
INSERT INTO sagad.saga (
    uid, revision, epoch, create_time, update_time, parking_mask, state, category,
    namespace, saga_id, definition_id, version, labels, request_hash, body
)
SELECT gen_random_uuid(), 1, 1, now(), now(), 0, 4, 0, 'default', n::text, 'order', '1.0.0', '{}', '', ''
FROM generate_series(1, 20000) AS n;
INSERT INTO sagad.event (batch_id, revision, time, cause, relay_partition, namespace, saga_id, body)
SELECT gen_random_uuid(), 1, now(), 1, n % 64, 'default', n::text, '' FROM generate_series(1, 20000) AS n
"""


async def events(store: PostgresStore, after: Cursor = BEGINNING) -> list[JournalRow]:
    return (await store.read_journal(after, LIMIT)).rows


def names(rows: list[JournalRow]) -> list[tuple[str, int]]:
    return [(row.event.saga_id, row.event.revision) for row in rows]


async def test_nothing_behind_an_open_transaction_is_read_before_it_ends(
    store: PostgresStore, postgres_dsn: str
) -> None:
    await store.commit(batch(start("a"), start("b")))
    async with holding(postgres_dsn, WRITE_EVENT) as other:  # another node, whose commit takes long
        await store.commit(batch(step("b", 2)))
        await store.commit(batch(step("b", 3)))
        before = await events(store)
        cursor = await store.journal_end()
        behind = await events(store, cursor)
        await other.execute("COMMIT")

    assert sorted(names(before)) == [("a", 1), ("b", 1)]
    assert cursor == before[-1].cursor
    assert behind == []
    assert names(await events(store, cursor)) == [("a", 2), ("b", 2), ("b", 3)]


async def test_an_open_transaction_that_is_rolled_back_holds_nothing_back(
    store: PostgresStore, postgres_dsn: str
) -> None:
    await store.commit(batch(start("a")))
    cursor = await store.journal_end()
    async with holding(postgres_dsn, WRITE_EVENT) as other:
        await store.commit(batch(start("b")))
        assert await events(store, cursor) == []
        await other.execute("ROLLBACK")

    assert names(await events(store, cursor)) == [("b", 1)]


async def test_readers_that_read_all_the_time_see_the_commits_of_several_writers_once_and_in_one_order(
    store: PostgresStore, postgres_dsn: str
) -> None:
    sagas = [f"{writer}-{number}" for writer in "abc" for number in range(40)]
    await store.commit(batch(*(start(saga) for saga in sagas)))
    beginning = await store.journal_end()
    writing = asyncio.Event()

    async def read() -> list[JournalRow]:
        rows, cursor = [], beginning
        while True:
            is_last = writing.is_set()
            page = await store.read_journal(cursor, LIMIT)
            rows += page.rows
            cursor = page.cursor
            if is_last and not page.more:
                return rows

    async def write(writer: str) -> None:
        connection = await connect(PostgresSettings(dsn=postgres_dsn))
        try:
            for number in range(40):
                async with connection.transaction():  # whose id is older than that of others that end before it
                    await connection.execute(WRITE_EVENT.replace("'a'", f"'{writer}-{number}'"))
                    await asyncio.sleep(0)
        finally:
            await connection.close()

    readers = [asyncio.create_task(read()) for _ in range(2)]
    await asyncio.gather(*(write(writer) for writer in "abc"))
    writing.set()
    first, second = [await reader for reader in readers]

    assert first == second
    assert sorted(names(first)) == sorted((saga, 2) for saga in sagas)
    assert [row.cursor for row in first] == sorted(row.cursor for row in first)


async def test_an_event_that_cannot_be_read_yet_is_not_purged(store: PostgresStore, postgres_dsn: str) -> None:
    async def purge() -> int:
        return (await store.purge(None, SagaFilter(), timedelta(0), 10, dry_run=False)).count

    await store.commit(batch(start("a"), start("b")))
    async with holding(postgres_dsn, WRITE_EVENT) as other:
        await store.commit(batch(end("b", 2)))
        assert await purge() == 0
        assert not (await store.read_journal(await store.journal_end(), LIMIT)).purged
        await other.execute("ROLLBACK")

    assert await purge() == 1


async def test_events_of_before_the_journal_told_parkings_and_category_are_read_without(
    open_store: OpenStore, postgres_dsn: str, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(sys.modules[migrate.__module__], "known_migrations", lambda: {1: known_migrations()[1]})
        await migrate(postgres_dsn)
    await admin.execute(FILL.replace("20000", "1"))

    (row,) = await events(await open_store(postgres_dsn))

    assert names([row]) == [("1", 1)]
    assert (row.parking_mask, row.category) == (0, 0)


@pytest.mark.parametrize("state", ["empty", "never analysed", "analysed empty", "analysed full"])
@pytest.mark.parametrize("sql", [END, READ], ids=["end", "read"])
async def test_the_journal_is_read_by_its_index_whatever_the_statistics_say(
    postgres_dsn: str, admin: Connection, sql: str, state: str
) -> None:
    await migrate(postgres_dsn)
    connection = await connect(PostgresSettings(dsn=postgres_dsn))
    try:
        if state == "analysed empty":
            await connection.execute("ANALYZE")
        if state != "empty":
            await connection.execute(FILL)
        if state == "analysed full":
            await connection.execute("ANALYZE")
        arguments = ["800", "100", "16", "'elsewhere'"]
        for number, argument in enumerate(arguments, start=1):
            sql = re.sub(rf"\${number}\b", argument if number != 1 else f"'{argument}'::xid8", sql)
        text = "\n".join(line[0] for line in await connection.fetch(f"EXPLAIN {sql}"))
    finally:
        await connection.close()

    assert not re.search("Seq Scan on (event|saga)", text), text
    assert "using event_relay on event" in text
    if sql is READ:
        assert "using saga_pkey on saga" in text
        assert "Tid Scan on event" in text
