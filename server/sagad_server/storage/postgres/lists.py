"""Lists and counts of the sagas that a filter selects. Of those that have ended, each reads a bounded number."""

import json

from sagad_server.domain.states import ENDED, SagaState
from sagad_server.storage.lists import SagaPage, Stats
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.postgres.rows import saga_row
from sagad_server.storage.postgres.selection import Parameters, Search, parts_with_an_index, where
from sagad_server.storage.rows import Position, SagaRow
from sagad_server.storage.selection import SagaFilter, selects

_RARE = 5_000
"""What is estimated at less than one of so many may be one of all: PostgreSQL takes no label for rarer than one of
10,000."""
_MOST_VERSIONS = 32
"""Ranges of which each is read for as many as are asked for. With more, all definitions' sagas are looked through."""


async def list_sagas(
    pool: Pool, namespace: str, selection: SagaFilter, after: Position | None, limit: int, most_scanned: int
) -> SagaPage:
    """See `Store.list_sagas`."""
    search = await find_search(pool, namespace, selection, limit, most_scanned)
    parameters = Parameters()
    sql = list_statement(search, after, limit, parameters)
    rows: list[SagaRow] = []
    for record in await pool.fetch_planned(sql, parameters.values):
        row = saga_row(record)
        stopped = record["place"] == search.most_scanned
        if not stopped or selects(selection, row):
            rows.append(row)
        if stopped or len(rows) == limit:  # what comes after the end of a range may not be all that there is
            return SagaPage(rows, row.position)
    return SagaPage(rows, None)


async def stats(pool: Pool, namespace: str, selection: SagaFilter, most_ended: int, most_scanned: int) -> Stats:
    """See `Store.stats`."""
    search = await find_search(pool, namespace, selection, 1, most_scanned)
    parameters = Parameters()
    sql = stats_statement(search, most_ended, parameters)
    records = await pool.fetch_planned(sql, parameters.values)
    (total,) = (record for record in records if record["state"] is None)
    by_state = {record["state"]: record["count"] for record in records if record["state"] is not None}
    p50, p90, p99 = total["durations"] or (None, None, None)
    return Stats(by_state, p50, p90, p99, total["oldest"], total["ended_since"])


def list_statement(search: Search, after: Position | None, limit: int, parameters: Parameters) -> str:
    """The first of the selected sagas that follow a place."""
    newest = search.newest(frozenset(SagaState), after, limit, parameters)
    return SAGAS["list"].format(newest=newest, limit=parameters.add(limit))


def stats_statement(search: Search, most_ended: int, parameters: Parameters) -> str:
    """Counts of all selected sagas that have not ended, and of the newest ones that have."""
    return SAGAS["stats"].format(
        where=where(search.namespace, search.selection, parameters),
        newest=search.newest(ENDED, None, most_ended + 1, parameters),
        most=parameters.add(search.most_scanned),
        limit=parameters.add(most_ended),
    )


async def find_search(pool: Pool, namespace: str, selection: SagaFilter, limit: int, most_scanned: int) -> Search:
    """Where to look, so that about `most_scanned` sagas are read of each state, or as many as are asked for of each
    range, of which there are a few."""
    few = await _few(pool, selection, most_scanned)
    versions: list[tuple[str, str]] | None = None
    if selection.definition_id or selection.version:
        found = await pool.fetch(SAGAS["versions"], namespace, selection.definition_id, selection.version)
        if len(found) <= _MOST_VERSIONS:
            versions = [(record["definition_id"], record["version"]) for record in found]
    ranges = len(set(selection.categories)) or len(versions or ()) or 1
    return Search(namespace, selection, few, versions, max(limit, most_scanned // ranges))


async def _few(pool: Pool, selection: SagaFilter, most: int) -> SagaFilter | None:
    """The part of the filter that selects few, whatever the rest of it says."""
    for part in parts_with_an_index(selection):
        if await _seems_few(pool, part, most) and await _count(pool, part, most + 1) <= most:
            return part
    return None


async def _seems_few(pool: Pool, selection: SagaFilter, most: int) -> bool:
    """Not to count what is certainly many, for which an index would be read for long."""
    estimate = await _estimate(pool, selection)
    return estimate <= most or estimate * _RARE <= await _estimate(pool, SagaFilter())


async def _estimate(pool: Pool, selection: SagaFilter) -> int:
    parameters = Parameters()
    sql = SAGAS["estimate"].format(few=where(None, selection, parameters))
    plan = json.loads(await pool.fetchval(sql, *parameters.values))
    rows: int = plan[0]["Plan"]["Plan Rows"]
    return rows


async def _count(pool: Pool, selection: SagaFilter, limit: int) -> int:
    """Up to a limit."""
    parameters = Parameters()
    few = where(None, selection, parameters)
    records = await pool.fetch_planned(
        SAGAS["count_few"].format(few=few, limit=parameters.add(limit)), parameters.values
    )
    count: int = records[0]["count"]
    return count
