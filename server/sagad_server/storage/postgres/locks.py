"""Who holds and who waits for which resource lock."""

from collections.abc import Sequence

import asyncpg

from sagad_server.storage.locks import Holder, LockId, LockRow
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.rows import Key

LOCKS = load_queries("locks")
_TRIES = 3
"""Of one lock. What is lost then is looked at again soon."""


async def grant(pool: Pool, locks: Sequence[LockId], tries: int = _TRIES) -> list[Holder]:
    """See `Store.grant`. Where another node was quicker since the statement began, all of it is undone, and tried again
    in halves: a lock that many want holds up no others."""
    namespaces, names = [namespace for namespace, _ in locks], [name for _, name in locks]
    try:
        records = await pool.fetch(LOCKS["grant"], namespaces, names)
    except asyncpg.UniqueViolationError:
        middle = len(locks) // 2
        if middle:
            return [*await grant(pool, locks[:middle]), *await grant(pool, locks[middle:])]
        return await grant(pool, locks, tries - 1) if tries else []
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
