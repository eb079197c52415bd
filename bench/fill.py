"""Fills a database with ended sagas: copies of some that sagad itself has driven, so every byte of them is valid.

A copy is a row and its journal under another saga_id, moved back in time. The newest ended just now.
"""

import asyncpg

from bench.backlog import Connection, start_all, until_none

TEMPLATES = [f"template-{number}" for number in range(20)]
WITHIN_S = 60.0
CHUNK = 50_000
APART_US = 200_000
"""Between the starts of two sagas: 10 million of them are three weeks."""
INDEXES = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index AS i
WHERE indrelid = ANY ('{sagad.saga,sagad.event}'::regclass[])
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""

# The copies are of the templates in turn; `age` is how far back in time the n-th of $2 lies behind its template.
COPIED = """
WITH template AS (
    SELECT s.*, row_number() OVER (ORDER BY saga_id) - 1 AS number, count(*) OVER () AS count
    FROM sagad.saga AS s WHERE saga_id LIKE 'template-%'
),
copied AS (
    SELECT t.saga_id AS template, 'fill-' || lpad(n::text, 12, '0') AS copy, n, ($2 - n) * $3 * interval '1 us' AS age
    FROM generate_series($1::bigint, least($1 + $4, $2) - 1) AS n JOIN template AS t ON n % t.count = t.number
)
"""

SAGAS = f"""{COPIED}
INSERT INTO sagad.saga (
    uid, revision, epoch, create_time, update_time, parking_mask, state, category, end_time, namespace, saga_id,
    definition_id, version, incident_id, labels, request_hash, body
)
SELECT
    gen_random_uuid(), revision, epoch, create_time - age, update_time - age, parking_mask, state, category,
    end_time - age, namespace, copy, definition_id, version, incident_id,
    labels || jsonb_build_object(
        'order', n::text, 'customer', (n / 20 % 50000)::text, 'region', (n / 20 % 4)::text, 'shelf', (n % 4)::text
    ),
    request_hash, body
FROM copied AS c JOIN sagad.saga AS s ON s.saga_id = c.template
ORDER BY n
"""

EVENTS = f"""{COPIED}
INSERT INTO sagad.event (
    batch_id, revision, time, cause, relay_partition, namespace, saga_id, body, payload, category, parking_mask
)
SELECT
    batch_id, revision, time - age, cause,
    get_byte(sha256(namespace::bytea || '\\x00'::bytea || copy::bytea), 7) & 63,
    namespace, copy, body, payload, category, parking_mask
FROM copied AS c JOIN sagad.event AS e ON e.saga_id = c.template
ORDER BY n, revision
"""


async def fill(dsn: str, port: int, sagas: int) -> None:
    """Starts 20 sagas at the sagad on `port`, one of which is compensated, and makes `sagas` copies of them in turn.

    They have the labels order (unique), customer (50,000 of them), region (4 of them) and shelf (4; the copies of one
    template have the same). The secondary indexes are made anew afterwards, and the tables are vacuumed and analysed.
    """
    await start_all(port, "bench", TEMPLATES[1:])
    await start_all(port, "bench-refused", TEMPLATES[:1])
    connection = await asyncpg.connect(dsn, server_settings={"synchronous_commit": "off", "jit": "off"})
    try:
        await until_none(connection, "state IN (1, 2)", WITHIN_S)
        await connection.execute("SET maintenance_work_mem = '1GB'")
        indexes = await connection.fetch(INDEXES)
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        for first in range(0, sagas, CHUNK):
            await copy_chunk(connection, first, sagas)
            print(f"{min(first + CHUNK, sagas):,} sagas", flush=True)
        for index in indexes:
            await connection.execute(index["definition"])
        await connection.execute("VACUUM (ANALYZE) sagad.saga, sagad.event")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def copy_chunk(connection: Connection, first: int, sagas: int) -> None:
    for statement in (SAGAS, EVENTS):
        await connection.execute(statement, first, sagas, APART_US, CHUNK)
