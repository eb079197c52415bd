"""What PostgreSQL makes of the statements whose text depends on a filter: no list reads the whole table."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from support.postgres import database

from sagad_server.domain.states import ENDED, SagaState
from sagad_server.storage.postgres import PostgresSettings, migrate
from sagad_server.storage.postgres.connect import connect
from sagad_server.storage.postgres.lists import list_sagas, stats
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.postgres.selection import Parameters, where
from sagad_server.storage.selection import SagaFilter

LIMIT = 50
MOST_SCANNED = 500
MINUTE = timedelta(minutes=1)

# A saga a second until now. Those of version 1 are the older half. Of 100 sagas 1 moves, 1 is parked, 3 have failed.
FILL = """
INSERT INTO sagad.definition (namespace, definition_id, version, active, step_count, body)
SELECT 'default', d, v, true, 1, '' FROM unnest('{order,refund}'::text[]) AS d, unnest('{1,2}'::text[]) AS v;
INSERT INTO sagad.saga (
    uid, revision, epoch, create_time, update_time, end_time, parking_mask, state, category,
    namespace, saga_id, definition_id, version, labels, request_hash, body
)
SELECT
    gen_random_uuid(), 1, 1, t, t, CASE WHEN state > 3 THEN t END, CASE WHEN state = 3 THEN 4 ELSE 0 END, state,
    CASE WHEN state = 5 THEN 2 ELSE 0 END, 'default', n::text, CASE WHEN n % 50 = 7 THEN 'refund' ELSE 'order' END,
    CASE WHEN n <= 20000 THEN '1' ELSE '2' END,
    jsonb_build_object('region', (n / 100 % 4)::text, 'shelf', (n % 5)::text, 'order', n::text), '', ''
FROM generate_series(1, 40000) AS n,
LATERAL (SELECT CASE n % 100 WHEN 0 THEN 1 WHEN 1 THEN 3 ELSE CASE WHEN n % 100 < 5 THEN 5 ELSE 4 END END) AS s (state),
LATERAL (SELECT now() - (40000 - n) * interval '1 s') AS l (t)
"""

# The last transition of each saga that has ended, of which a mirror that stands still has relayed the first hundred.
MIRROR = """
INSERT INTO sagad.event (batch_id, revision, time, cause, relay_partition, namespace, saga_id, body)
SELECT gen_random_uuid(), 1, end_time, 1, saga_id::integer % 64, namespace, saga_id, ''
FROM sagad.saga WHERE end_time IS NOT NULL
ORDER BY end_time;
INSERT INTO sagad.mirror_lane (topic, lane, xid, position)
SELECT 'saga-events', lane, e.xid, e.position
FROM generate_series(0, 7) AS lane, (SELECT xid, position FROM sagad.event ORDER BY position LIMIT 1 OFFSET 100) AS e
"""

SERVED_BY: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing": ("saga_listed", {}),
    "a state": ("saga_listed", {"states": (SagaState.RUNNING,)}),
    "states": ("saga_listed", {"states": tuple(ENDED)}),
    "a definition": ("saga_definition", {"definition_id": "refund"}),
    "a version": ("saga_definition", {"version": "1"}),
    "an old version": ("saga_definition", {"definition_id": "order", "version": "1"}),
    "a definition, by state": ("saga_definition", {"definition_id": "order", "states": (SagaState.COMPENSATED,)}),
    "a rare label": ("saga_labels", {"labels": {"order": "777"}}),
    "a common label": ("saga_listed", {"labels": {"region": "1"}}),
    "created until": ("saga_listed", {"create_time_max": -300 * MINUTE}),
    "created within": ("saga_listed", {"create_time_min": -300 * MINUTE, "create_time_max": -200 * MINUTE}),
    "ended until": ("saga_listed", {"end_time_max": -300 * MINUTE}),
    "ended since": ("saga_listed", {"end_time_min": -300 * MINUTE}),
    "ended within a minute": ("saga_ended", {"end_time_min": -300 * MINUTE, "end_time_max": -299 * MINUTE}),
    "a parking reason": ("saga_parked", {"parking_mask": 4}),
    "a parking reason, by state": ("saga_(listed|parked)", {"parking_mask": 4, "states": (SagaState.PARKED,)}),
    "a category": ("saga_failed", {"categories": (2,)}),
    "a category of a definition": ("saga_failed", {"categories": (2,), "definition_id": "order"}),
    "a rare label of none in a state": ("saga_labels", {"labels": {"order": "777"}, "states": (SagaState.RUNNING,)}),
    # What is of many, with what is of none of these.
    "a category, a definition": ("saga_failed", {"categories": (2,), "definition_id": "refund"}),
    "a category, a label": ("saga_failed", {"categories": (2,), "labels": {"shelf": "1"}}),
    "a definition, a label": ("saga_definition", {"definition_id": "refund", "labels": {"shelf": "1"}}),
    "a state, a label": ("saga_listed", {"states": (SagaState.COMPENSATED,), "labels": {"shelf": "1"}}),
    "a parking reason, a label": ("saga_parked", {"parking_mask": 4, "labels": {"shelf": "3"}}),
    "a parking reason that nobody has": ("saga_parked", {"parking_mask": 8}),
    "a label that nobody has": ("saga_labels", {"labels": {"shelf": "9"}, "create_time_max": -MINUTE}),
}


class ExplainingPool(Pool):
    """Runs statements, and notes what PostgreSQL makes of them."""

    def __init__(self, settings: PostgresSettings) -> None:
        super().__init__(settings)
        self.plans: list[str] = []

    async def fetch_planned(self, sql: str, arguments: Sequence[object]) -> Any:
        lines = await self.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) {sql}", *arguments)
        self.plans.append("\n".join(line[0] for line in lines))
        return await super().fetch_planned(sql, arguments)

    def take(self) -> tuple[str, int]:
        """The plans since the last call, and how many rows of saga were read by them."""
        plans, self.plans = self.plans, []
        return "\n".join(plans), sum(map(rows_read, plans))


async def fill(dsn: str, *more: str) -> None:
    await migrate(dsn)
    connection = await connect(PostgresSettings(dsn=dsn))
    for sql in (FILL, *more):
        await connection.execute(sql)
    await connection.execute("SET default_statistics_target = 1000")  # all rows: a sample makes other plans by chance
    await connection.execute("VACUUM ANALYZE sagad.saga")
    await connection.close()


@pytest.fixture(scope="module")
def filled_dsn(postgres_server_dsn: str) -> Iterator[str]:
    """For those who only read."""
    with database(postgres_server_dsn) as dsn:
        asyncio.run(fill(dsn))
        yield dsn


@pytest.fixture
async def pool(filled_dsn: str) -> AsyncIterator[ExplainingPool]:
    pool = ExplainingPool(PostgresSettings(dsn=filled_dsn))
    await pool.open()
    yield pool
    await pool.close()


def rows_read(plan: str) -> int:
    """Of saga."""
    lines = plan.splitlines()
    read, here = 0, False
    for line in lines:
        if "->" in line or line is lines[0]:
            here = bool(re.search(r" on saga(_\d+| saga_\d+)?\b| on saga s", line)) and "Bitmap Index" not in line
            rows = re.search(r"rows=([\d.]+) loops=(\d+)", line)
            read += round(float(rows[1]) * int(rows[2])) if here and rows else 0
        elif here and (removed := re.search(r"Rows Removed by Filter: (\d+)", line)):
            read += int(removed[1])
    return read


def selection(fields: dict[str, Any], now: datetime) -> SagaFilter:
    """Spans of time are counted from now."""
    return SagaFilter(
        **{name: now + value if isinstance(value, timedelta) else value for name, value in fields.items()}
    )


@pytest.mark.parametrize("deep", [False, True], ids=["first page", "deep page"])
async def test_each_list_is_read_from_its_index_and_only_so_far_whatever_it_finds(
    pool: ExplainingPool, deep: bool
) -> None:
    now = await pool.fetchval("SELECT max(create_time) FROM sagad.saga")
    for name, (index, fields) in SERVED_BY.items():
        after = (now - 250 * MINUTE, "25000") if deep else None

        await list_sagas(pool, "default", selection(fields, now), after, LIMIT, MOST_SCANNED)

        text, read = pool.take()
        assert "Seq Scan on saga" not in text, f"{name}: {text}"
        assert deep or re.search(rf"(using|on) {index}\b", text), f"{name}: {text}"
        assert read <= 4 * MOST_SCANNED, f"{name}, {read} rows were read: {text}"


async def test_a_label_of_one_saga_is_looked_up_in_however_large_a_table(pool: ExplainingPool) -> None:
    """PostgreSQL takes it for more than it is, and in a large table for more than may be looked at."""
    page = await list_sagas(pool, "default", SagaFilter(labels={"order": "777"}), None, 2, 1)

    text, read = pool.take()
    assert [row.saga_id for row in page.rows] == ["777"]
    assert read == 2, text  # counted, and read


async def test_a_list_of_what_fills_its_page_is_read_no_further_than_that(pool: ExplainingPool) -> None:
    for fields in ({}, {"definition_id": "order"}, {"states": (SagaState.SUCCEEDED,)}, {"categories": (2,)}):
        page = await list_sagas(pool, "default", SagaFilter(**fields), None, LIMIT, MOST_SCANNED)

        text, read = pool.take()
        assert len(page.rows) == LIMIT
        assert read <= 8 * LIMIT, f"{fields}, {read} rows were read: {text}"


async def test_what_is_of_many_versions_is_found_in_ranges_of_states_alone(
    pool: ExplainingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "default", SagaFilter(definition_id="order"), None, LIMIT, MOST_SCANNED
    found = await list_sagas(pool, *asked)
    monkeypatch.setattr("sagad_server.storage.postgres.lists._MOST_VERSIONS", 0)
    pool.take()

    assert await list_sagas(pool, *asked) == found
    text, read = pool.take()
    assert read <= 8 * LIMIT, text


async def test_stats_read_no_more_of_what_has_ended_than_they_count(pool: ExplainingPool) -> None:
    await stats(pool, "default", SagaFilter(), LIMIT, MOST_SCANNED)

    text, read = pool.take()
    assert "Seq Scan on saga" not in text, text
    assert read <= 800 + 3 * LIMIT, text  # 800 have not ended


async def test_stats_of_what_is_rare_say_how_far_they_have_looked(pool: ExplainingPool) -> None:
    selected = SagaFilter(states=(SagaState.COMPENSATED,), labels={"shelf": "1"})

    found = await stats(pool, "default", selected, LIMIT, MOST_SCANNED)

    text, read = pool.take()
    assert read <= 2 * MOST_SCANNED, text
    assert found.by_state == {}
    assert found.ended_since is not None


@pytest.mark.parametrize("goes_on", [False, True], ids=["first batch", "next batch"])
async def test_a_purge_reads_the_oldest_ends_alone_and_goes_on_behind_them(pool: ExplainingPool, goes_on: bool) -> None:
    now = await pool.fetchval("SELECT max(create_time) FROM sagad.saga")
    parameters = Parameters()
    condition = where(None, SagaFilter(end_time_min=now - 300 * MINUTE if goes_on else None), parameters)
    bounds = {"age": parameters.add(MINUTE), "held_since": "NULL", "limit": parameters.add(LIMIT)}

    await pool.fetch_planned(SAGAS["purgeable"].format(where=condition, **bounds), parameters.values)

    text, read = pool.take()
    assert re.search(r"using saga_ended on saga", text), text
    assert ("Index Cond: ((end_time >= " in text) is goes_on, text
    assert read <= 2 * LIMIT, text


async def test_a_purge_reads_little_of_what_a_mirror_that_stands_still_holds_back(postgres_dsn: str) -> None:
    await fill(postgres_dsn, MIRROR)
    pool = ExplainingPool(PostgresSettings(dsn=postgres_dsn))
    await pool.open()
    parameters = Parameters()
    (held,) = await pool.fetch_planned(SAGAS["held_since"], ())
    bounds = {"age": parameters.add(MINUTE), "held_since": parameters.add(held["since"]), "limit": 500}
    bounds["where"] = where(None, SagaFilter(), parameters)

    found = await pool.fetch_planned(SAGAS["purgeable"].format(**bounds), parameters.values)

    text, read = pool.take()
    await pool.close()
    assert len(found) == 100
    assert read <= 300, text
    assert "Seq Scan on event" not in text, text
