"""A PostgreSQL for the tests, and empty databases in it."""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from sagad_server.embedded import EmbeddedPostgres

SERVER_VARIABLE = "SAGAD_TEST_POSTGRES"


@contextmanager
def postgres_server() -> Iterator[str]:
    """The DSN of a superuser of a PostgreSQL: that of the environment or else one of our own, without fsync."""
    if dsn := os.environ.get(SERVER_VARIABLE):
        yield dsn
        return
    with embedded_postgres() as server:
        yield server.dsn


@contextmanager
def embedded_postgres() -> Iterator[EmbeddedPostgres]:
    """A running server of one's own, that a test may stop and kill."""
    with new_folder() as folder:
        server = EmbeddedPostgres(folder, fsync=False)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder that every account can enter: pytest's are closed to the one that PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="sagad-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def database(server_dsn: str, template: str = "template1") -> Iterator[str]:
    """The DSN of a fresh database, gone afterwards with all its connections."""
    name = f"sagad_test_{uuid.uuid4().hex[:12]}"
    execute(server_dsn, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield urlunsplit(urlsplit(server_dsn)._replace(path=f"/{name}"))
    finally:
        execute(server_dsn, f'DROP DATABASE "{name}" WITH (FORCE)')


def execute(dsn: str, sql: str) -> None:
    """Runs a statement from code that is not async, whether or not a loop runs in this thread."""

    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run()).result()
