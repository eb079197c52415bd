"""Who holds and who waits for which resource lock."""

from collections.abc import Sequence

import asyncpg

from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.store import Holder, Key, LockId, LockRow

LOCKS = load_queries("locks")


async def grant(pool: Pool, locks: Sequence[LockId]) -> list[Holder]:
    """See `Store.grant`."""
    namespaces, names = [namespace for namespace, _ in locks], [name for _, name in locks]
    try:
        records = await pool.fetch(LOCKS["grant"], namespaces, names)
    except asyncpg.UniqueViolationError:  # another node was quicker, since this statement began
        return []
    return [
        Holder((record["namespace"], record["name"]), record["saga_id"], record["fencing_token"], record["granted"])
        for record in records
    ]


async def of_sagas(pool: Pool, keys: Sequence[Key]) -> dict[Key, list[LockRow]]:
    """See `Store.locks`."""
    namespaces, saga_ids = [namespace for namespace, _ in keys], [saga_id for _, saga_id in keys]
    found: dict[Key, list[LockRow]] = {}
    for record in await pool.fetch(LOCKS["of_sagas"], namespaces, saga_ids) if keys else ():
        namespace, saga_id, *columns = record
        found.setdefault((namespace, saga_id), []).append(LockRow(*columns))
    return found
