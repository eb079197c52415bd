"""How sagas change hands in the database."""

from collections.abc import Mapping
from uuid import UUID

from sagad_server.storage.postgres.load import key_columns, load
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.rows import Key, LoadedSaga


async def claim(pool: Pool, owner: UUID, statement: str, *arguments: object) -> list[LoadedSaga]:
    """What one of the statements `claim`, `wake` and `claim_one` finds. One transaction: a saga is not taken over
    without having been read."""
    async with pool.transaction() as connection:
        claimed = await connection.fetch(SAGAS[statement], owner, *arguments)
        return await load(connection, [(row["namespace"], row["saga_id"]) for row in claimed])


async def hand_back(pool: Pool, owner: UUID, keys: Mapping[Key, tuple[int, int]]) -> set[Key]:
    """See `Store.hand_back`."""
    ordered = sorted(keys)
    stands_at = [[keys[key][place] for key in ordered] for place in (0, 1)]
    given = await pool.fetch(SAGAS["hand_back"], owner, *key_columns(ordered), *stands_at)
    return {(record["namespace"], record["saga_id"]) for record in given}
