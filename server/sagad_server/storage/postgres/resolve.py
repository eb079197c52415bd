"""What became of a batch whose outcome is unknown."""

from collections.abc import Sequence

from sagad_server.storage.postgres.connect import AWAY, close, connect, describe
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.postgres.rows import row_state
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.rows import Key, RowState
from sagad_server.storage.store import Retryable

SAGAS = load_queries("sagas")


async def resolve(settings: PostgresSettings, keys: Sequence[Key]) -> dict[Key, RowState]:
    """See `Store.resolve`. On a connection of its own, because the others may be as lost as the one that raised doubts.

    Waits at most `writer_silence_s` for the rows, which another connection may still be writing.
    """
    ordered = sorted(set(keys))
    columns = [[namespace for namespace, _ in ordered], [saga_id for _, saga_id in ordered]]
    limit_s = settings.writer_silence_s
    session = {"application_name": "sagad resolve", "enable_seqscan": "off"}
    try:
        connection = await connect(settings, statement_timeout=f"{limit_s * 1000:.0f}", **session)
        try:
            # Two statements: only the second one's snapshot shows the events of what the first one waited for.
            await connection.execute(SAGAS["await_rows"], *columns, timeout=2 * limit_s)
            records = await connection.fetch(SAGAS["row_states"], *columns, timeout=2 * limit_s)
        finally:
            await close(connection)
    except AWAY as error:
        raise Retryable(f"PostgreSQL: {describe(error)}") from error
    return {(record["namespace"], record["saga_id"]): row_state(record) for record in records}
