"""What PostgreSQL makes of the hot statements."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from support.rows import Connection, until
from support.storage import OpenStore, batch, end, key, start, step

from sagad_server.domain.states import SagaState
from sagad_server.storage.mirror import relay_partition
from sagad_server.storage.postgres import PostgresSettings, PostgresStore, migrate
from sagad_server.storage.postgres.connect import connect
from sagad_server.storage.postgres.definitions import SQL as DEFINITIONS
from sagad_server.storage.postgres.locks import LOCKS
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.postgres.writer import ADVANCE, COMMIT, COMMIT_WITH_LOCKS, SESSION

HOT = """
SELECT n_tup_upd AS updates, n_tup_hot_upd AS hot FROM pg_stat_user_tables
WHERE schemaname = 'sagad' AND relname = 'saga' AND n_tup_upd >= $1::int
"""

FILL = """
INSERT INTO sagad.definition (namespace, definition_id, version, active, step_count, body)
SELECT 'default', 'order', n::text, true, 1, '' FROM generate_series(1, 900) AS n;
INSERT INTO sagad.saga (
    uid, revision, epoch, create_time, update_time, parking_mask, state, category,
    namespace, saga_id, definition_id, version, labels, request_hash, body, owner
)
SELECT
    gen_random_uuid(), 1, 1, now(), now(), 0, CASE WHEN n % 100 = 0 THEN 1 ELSE 4 END, 0,
    'default', n::text, 'order', (1 + n % 900)::text, '{"region": "north"}', '', '', gen_random_uuid()
FROM generate_series(1, 20000) AS n;
INSERT INTO sagad.lock (namespace, saga_id, name, fencing_token)
SELECT 'default', n::text, 'lock-' || n / 2, CASE WHEN n % 2 = 0 THEN n END FROM generate_series(1, 20000) AS n
"""

QUEUE = """
INSERT INTO sagad.lock (namespace, saga_id, name, fencing_token)
SELECT 'default', 's' || n, 'x', CASE WHEN n = 0 THEN 1 END FROM generate_series(0, 499) AS n
"""


@pytest.fixture
async def writer(postgres_dsn: str) -> AsyncIterator[Connection]:
    """A connection like the writer's, to a fresh and never analysed database."""
    await migrate(postgres_dsn)
    connection = await connect(PostgresSettings(dsn=postgres_dsn), **SESSION)
    yield connection
    await connection.close()


async def plan(writer: Connection, sql: str) -> str:
    nulls = ", ".join("NULL" for _ in set(re.findall(r"\$\d+", sql)))
    await writer.execute(f"PREPARE hot AS {sql}")
    lines = await writer.fetch(f"EXPLAIN EXECUTE hot ({nulls})" if nulls else "EXPLAIN EXECUTE hot")
    await writer.execute("DEALLOCATE hot")
    return "\n".join(line[0] for line in lines)


@pytest.mark.parametrize("sql", [ADVANCE, COMMIT, COMMIT_WITH_LOCKS], ids=["advance", "commit", "commit with locks"])
@pytest.mark.parametrize("state", ["never analysed", "analysed empty", "analysed full", "vacuumed full"])
async def test_the_commit_finds_its_rows_by_their_primary_key_whatever_the_statistics_say(
    writer: Connection, sql: str, state: str
) -> None:
    if "full" in state:
        await writer.execute(FILL)
    if "analysed" in state and "never" not in state:
        await writer.execute("ANALYZE")
    if "vacuumed" in state:
        await writer.execute("VACUUM ANALYZE sagad.saga")

    text = await plan(writer, sql)

    assert "Seq Scan" not in text
    scans = re.findall(r"(\w+ (?:Only )?Scan)[^\n]* on saga (\w+)[^\n]*\n\s*(.*)", text)
    assert [scan for scan, *_ in scans] == ["Index Scan", "Tid Scan"], text
    assert "Index Scan using saga_pkey on saga" in text
    assert "Index Cond: ((namespace = w.namespace) AND (saga_id = w.saga_id))" in text
    if sql is not ADVANCE:
        assert "Index Scan using definition_pkey on definition" in text
    if sql is COMMIT_WITH_LOCKS:
        assert re.search(r"(using|on) lock_queue .*\n +Index Cond: .*resource = ", text), text
        assert re.search(r"Scan using lock_pkey on lock \w+ .*\n +Index Cond: .*saga_id = ANY", text), text


async def test_ordinary_transitions_change_no_index(
    open_store: OpenStore, postgres_dsn: str, admin: Connection
) -> None:
    store = await open_store(postgres_dsn)
    sagas = [f"saga-{n:05}" for n in range(200)]
    await store.commit(batch(*(start(saga, labels={"region": "north"}, body=b"x" * 250) for saga in sagas)))
    for revision in range(2, 7):
        await store.commit(batch(*(step(saga, revision, body=b"x" * 250) for saga in sagas)))
    await store.close()  # its statistics are written when its connections end

    used = await until(lambda: admin.fetchrow(HOT, 5 * len(sagas)))

    assert used is not None
    assert used["hot"] == used["updates"]


READS: dict[str, tuple[str, Callable[[], str]]] = {
    "claim": ("saga_moving", lambda: SAGAS["claim"]),
    "claim_one": ("saga_pkey", lambda: SAGAS["claim_one"]),
    "load": ("saga_pkey", lambda: SAGAS["load"]),
    "load_events": ("event_pkey", lambda: SAGAS["load_events"]),
    "stranded": ("saga_moving", lambda: SAGAS["stranded"]),
    "count_by_state": ("saga_moving", lambda: SAGAS["count_by_state"]),
    "forget": ("saga_purged", lambda: SAGAS["forget"]),
    "get_row": ("saga_pkey", lambda: SAGAS["get_row"]),
    "moved": ("saga_pkey", lambda: SAGAS["moved"]),
    "grant": ("lock_queue", lambda: LOCKS["grant"]),
    "locks of sagas": ("lock_pkey", lambda: LOCKS["of_sagas"]),
    "in_use": ("saga_definition", lambda: DEFINITIONS["in_use"]),
}


@pytest.mark.parametrize("read", READS)
async def test_reads_of_a_large_table_use_the_index_made_for_them(postgres_dsn: str, read: str) -> None:
    await migrate(postgres_dsn)
    connection = await connect(PostgresSettings(dsn=postgres_dsn), plan_cache_mode="force_generic_plan")
    try:
        await connection.execute(FILL)
        await connection.execute("ANALYZE sagad.saga, sagad.lock")
        index, sql = READS[read]
        text = await plan(connection, sql())
    finally:
        await connection.close()

    assert re.search(rf"using {index} on|on {index} ", text), text
    assert not re.search("Seq Scan on (saga|lock)", text), text


async def test_the_locks_of_a_page_of_sagas_cost_one_look_at_a_queue_though_all_of_them_wait_in_it(
    postgres_dsn: str,
) -> None:
    await migrate(postgres_dsn)
    connection = await connect(PostgresSettings(dsn=postgres_dsn), plan_cache_mode="force_generic_plan")
    try:
        await connection.execute(QUEUE)
        sagas = [f"s{number}" for number in range(500)]
        explained = await connection.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {LOCKS['of_sagas']}", ["default"] * len(sagas), sagas
        )
    finally:
        await connection.close()

    rows = sum(rows_read(json.loads(explained)[0]["Plan"]))
    assert len(sagas) <= rows <= 3 * 500 + 10  # its own lock of each saga, the holder, and the queue


def rows_read(node: dict[str, Any]) -> Iterator[float]:
    """From the table of locks, by each scan of a plan."""
    if node.get("Relation Name") == "lock":
        yield node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
    for child in node.get("Plans", ()):
        yield from rows_read(child)


def test_the_relay_partition_of_a_saga_is_fixed_for_ever() -> None:
    assert relay_partition("default", "order-1") == 41
    assert relay_partition("\N{SNOWMAN}", "") == 63


async def test_a_claim_after_a_restart_reads_its_index_though_nothing_was_analysed(postgres_dsn: str) -> None:
    await migrate(postgres_dsn)
    connection = await connect(PostgresSettings(dsn=postgres_dsn), plan_cache_mode="force_generic_plan")
    try:
        await connection.execute(FILL)
        text = await plan(connection, SAGAS["claim"])
        wake = await plan(connection, SAGAS["wake"])
    finally:
        await connection.close()

    assert text.count("Index Scan using saga_moving on saga") == 2, text  # of the dead, released
    assert wake.count("Index Scan using saga_moving on saga") == 1, wake
    assert "Seq Scan on saga" not in wake, wake
    assert "Seq Scan on saga" not in text


async def test_a_saga_never_ends_before_it_was_created_though_the_clock_goes_back(
    store: PostgresStore, admin: Connection
) -> None:
    """Lists by end_time rest on it."""
    await store.commit(batch(start("a")))
    await admin.execute("UPDATE sagad.saga SET create_time = create_time + interval '1 hour'")
    await store.commit(batch(end("a", 2)))

    row = await store.get_row(key("a"))

    assert row is not None
    assert row.end_time == row.create_time


async def test_the_journal_has_what_a_relay_needs(store: PostgresStore, admin: Connection) -> None:
    await store.commit(batch(start("a"), start("b")))
    await store.commit(batch(step("a", 2), end("b", 2, state=SagaState.COMPENSATED, payload=b"p")))

    rows = await admin.fetch("SELECT * FROM sagad.event ORDER BY xid, position")

    assert [(row["saga_id"], row["revision"]) for row in rows] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert [row["relay_partition"] for row in rows] == [relay_partition("default", saga) for saga in "abab"]
    assert len({row["position"] for row in rows}) == 4
    first, second = {row["xid"] for row in rows[:2]}, {row["xid"] for row in rows[2:]}
    assert len(first) == len(second) == 1
    assert first != second
    assert [row["payload"] for row in rows] == [None, None, None, b"p"]
