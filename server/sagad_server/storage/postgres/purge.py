"""Ended sagas become tombstones."""

from datetime import timedelta

from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.postgres.selection import Parameters, where
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Purged


async def purge(
    pool: Pool, namespace: str | None, selection: SagaFilter, ended_before: timedelta, limit: int, *, dry_run: bool
) -> Purged:
    """See `Store.purge`."""
    parameters = Parameters()
    condition = where(namespace, selection, parameters)
    (held,) = await pool.fetch_planned(SAGAS["held_since"], ())
    bounds = {
        "age": parameters.add(ended_before),
        "held_since": parameters.add(held["since"]),
        "limit": parameters.add(limit),
    }
    purgeable = SAGAS["purgeable"].format(where=condition, **bounds)
    sql = SAGAS["count_purgeable" if dry_run else "purge"].format(purgeable=purgeable)
    (record,) = await pool.fetch_planned(sql, parameters.values)
    return Purged(*record)
