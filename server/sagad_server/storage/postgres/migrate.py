"""Numbered SQL files bring the schema up to date, each in a transaction of its own."""

import re
from importlib.resources import files

from sagad_server.storage.postgres.connect import AnyConnection, Connection, close, connect, unavailable
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.store import SchemaTooNew, SchemaTooOld

LOCK = 0x73616761640001  # "sagad" and a number: one migration at a time in a database

BOOKKEEPING = """
CREATE SCHEMA IF NOT EXISTS sagad;
CREATE TABLE IF NOT EXISTS sagad.schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    apply_time timestamptz NOT NULL DEFAULT now()
);
"""


def known_migrations() -> dict[int, str]:
    """Names of the files by version, oldest first."""
    names = sorted(file.name for file in (files(__package__) / "migrations").iterdir() if file.name.endswith(".sql"))
    numbers = [int(re.fullmatch(r"(\d{4})_\w+\.sql", name)[1]) for name in names]  # type: ignore[index]
    assert numbers == list(range(1, len(names) + 1)), f"migrations are not numbered one by one: {names}"
    return dict(zip(numbers, names, strict=True))


async def migrate(dsn: str, *, patience_s: float = 300.0) -> list[str]:
    """Applies what is missing, and returns the names of the files applied. Waits up to `patience_s` for another
    process that does so. Raises SchemaTooNew and Unavailable; a migration that fails has changed nothing."""
    with unavailable():
        connection = await connect(PostgresSettings(dsn=dsn))
        try:
            return await _migrate(connection, patience_s)
        finally:
            await close(connection)


async def _migrate(connection: Connection, patience_s: float) -> list[str]:
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK, timeout=patience_s)
    await connection.execute(BOOKKEEPING)
    version = await schema_version(connection)
    _refuse_newer(version)
    missing = {number: name for number, name in known_migrations().items() if number > version}
    for number, name in missing.items():
        await _apply(connection, number, name)
    return list(missing.values())


async def is_current(connection: AnyConnection) -> bool:
    """Whether nothing is missing. Raises SchemaTooNew."""
    try:
        await require_current(connection)
    except SchemaTooOld:
        return False
    return True


async def require_current(connection: AnyConnection) -> None:
    """Raises SchemaTooNew or SchemaTooOld unless the schema is the one that this code knows."""
    exists = await connection.fetchval("SELECT to_regclass('sagad.schema_migration') IS NOT NULL")
    version = await schema_version(connection) if exists else 0
    _refuse_newer(version)
    if version < (known := max(known_migrations())):
        raise SchemaTooOld(f"the database has schema version {version}, this sagad needs {known}: run `sagad migrate`")


async def schema_version(connection: AnyConnection) -> int:
    """The last migration applied; 0 if none."""
    version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM sagad.schema_migration")
    return version


async def _apply(connection: Connection, number: int, name: str) -> None:
    sql = (files(__package__) / "migrations" / name).read_text(encoding="utf-8")
    async with connection.transaction():
        await connection.execute(sql)
        await connection.execute("INSERT INTO sagad.schema_migration (version, name) VALUES ($1, $2)", number, name)


def _refuse_newer(version: int) -> None:
    if version > (known := max(known_migrations())):
        raise SchemaTooNew(
            f"the database has schema version {version}, and this sagad knows none above {known}: a newer sagad has "
            f"migrated it; start that one, or one that is newer still"
        )
