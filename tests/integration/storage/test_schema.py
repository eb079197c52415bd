"""Migrations."""

import asyncio
from itertools import chain
from pathlib import Path

import asyncpg
import pytest
from support.rows import Connection
from support.storage import OpenStore

from sagad_server.domain.errors import Unavailable
from sagad_server.storage.postgres import PostgresSettings, PostgresStore, migrate
from sagad_server.storage.postgres.migrate import known_migrations
from sagad_server.storage.postgres.schema import describe_schema
from sagad_server.storage.store import SchemaTooNew, SchemaTooOld

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "schema.sql"
KNOWN = max(known_migrations())
NEWER = "INSERT INTO sagad.schema_migration (version, name) VALUES (9999, 'of the future')"


async def test_the_migrations_give_the_documented_schema(postgres_dsn: str, admin: Connection) -> None:
    await migrate(postgres_dsn)

    assert await describe_schema(admin) == DOCUMENT.read_text(encoding="utf-8"), (
        f"make {DOCUMENT.name} anew with: python -m sagad_server.storage.postgres.schema DSN"
    )


async def test_each_migration_is_applied_once_and_named(postgres_dsn: str) -> None:
    assert await migrate(postgres_dsn) == list(known_migrations().values())
    assert await migrate(postgres_dsn) == []


async def test_two_that_migrate_at_once_apply_each_migration_once(postgres_dsn: str) -> None:
    applied = await asyncio.gather(*(migrate(postgres_dsn) for _ in range(3)))

    assert sorted(chain.from_iterable(applied)) == list(known_migrations().values())


async def test_a_newer_schema_is_refused_with_both_versions(
    open_store: OpenStore, postgres_dsn: str, admin: Connection
) -> None:
    await migrate(postgres_dsn)
    await admin.execute(NEWER)

    with pytest.raises(SchemaTooNew, match=rf"schema version 9999, .* none above {KNOWN}\b.*newer sagad"):
        await migrate(postgres_dsn)
    with pytest.raises(SchemaTooNew):
        await open_store(postgres_dsn)


async def test_a_store_that_must_not_migrate_refuses_an_older_schema_and_says_what_to_do(postgres_dsn: str) -> None:
    store = PostgresStore(PostgresSettings(dsn=postgres_dsn), migrates=False)

    with pytest.raises(SchemaTooOld, match=f"schema version 0, this sagad needs {KNOWN}: run `sagad migrate`"):
        await store.open("node")

    await migrate(postgres_dsn)
    await store.open("node")
    await store.close()


async def test_a_database_that_does_not_exist_is_named(postgres_dsn: str) -> None:
    with pytest.raises(Unavailable, match='database "missing" does not exist'):
        await migrate(postgres_dsn.rpartition("/")[0] + "/missing")


async def test_a_migration_that_fails_leaves_nothing_behind(postgres_dsn: str, admin: Connection) -> None:
    await admin.execute("CREATE SCHEMA sagad; CREATE TABLE sagad.nodes ()")

    with pytest.raises(asyncpg.DuplicateTableError):
        await migrate(postgres_dsn)

    assert await admin.fetchval("SELECT to_regclass('sagad.saga')") is None
    await admin.execute("DROP TABLE sagad.nodes")
    assert await migrate(postgres_dsn) == list(known_migrations().values())
