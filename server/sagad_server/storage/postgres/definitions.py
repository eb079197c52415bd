"""Definition versions in the database."""

from sagad_server.storage.audit import AuditEntry
from sagad_server.storage.definitions import StoredDefinition, VersionKey, in_use, require_room, said_otherwise
from sagad_server.storage.postgres.audit import append
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.postgres.rows import stored_definition

LOCK = 0x73616761640002  # "sagad" and a number
SQL = load_queries("definitions")


async def create(
    pool: Pool, definition: StoredDefinition, max_definitions: int, max_steps: int, audit: AuditEntry | None
) -> StoredDefinition:
    """See `Store.create_definition`."""
    key = (definition.namespace, definition.definition_id, definition.version)
    async with pool.transaction() as connection:
        await connection.execute(SQL["lock"], LOCK)
        if standing := await connection.fetchrow(SQL["get"], *key):
            return stored_definition(standing)
        if await connection.fetchval(SQL["said_otherwise"], *key, definition.body):
            raise said_otherwise(*key[1:])
        totals = await connection.fetchrow(SQL["count"])
        assert totals is not None
        require_room(definition, totals["definitions"], totals["steps"], max_definitions, max_steps)
        created = await connection.fetchrow(
            SQL["create"], *key, definition.active, definition.step_count, definition.body
        )
        assert created is not None
        if audit is not None:
            await append(connection, audit)
        return stored_definition(created)


async def set_active(pool: Pool, key: VersionKey, active: bool, audit: AuditEntry | None) -> StoredDefinition | None:
    """See `Store.set_definition_active`."""
    async with pool.transaction() as connection:
        record = await connection.fetchrow(SQL["set_active"], *key, active)
        if record is not None and audit is not None:
            await append(connection, audit)
    return stored_definition(record) if record else None


async def delete(pool: Pool, key: VersionKey, audit: AuditEntry | None) -> bool:
    """See `Store.delete_definition`."""
    async with pool.transaction() as connection:
        if await connection.fetchval(SQL["lock_for_delete"], *key) is None:
            return False
        if await connection.fetchval(SQL["in_use"], *key):
            raise in_use(*key[1:])
        await connection.execute(SQL["delete"], *key)
        if audit is not None:
            await append(connection, audit)
        return True
