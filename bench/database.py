"""The PostgreSQL server that both are measured on, and a fresh database on it for each run."""

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from sagad_server.embedded import EmbeddedPostgres

_numbers = itertools.count(1)


@contextmanager
def postgres(dsn: str | None) -> Iterator[str]:
    """Yields `dsn`, or that of an embedded PostgreSQL (fsync on) which is removed afterwards."""
    if dsn is not None:
        yield dsn
        return
    with tempfile.TemporaryDirectory(prefix="sagad-bench-") as folder:
        Path(folder).chmod(0o755)  # run by root, the server is `nobody`
        server = EmbeddedPostgres(Path(folder, "postgres"))
        server.start()
        try:
            yield server.dsn
        finally:
            server.stop()


@asynccontextmanager
async def fresh_database(dsn: str) -> AsyncIterator[str]:
    """Yields the DSN of an empty database beside that of `dsn`; it is dropped afterwards."""
    name = f"sagad_bench_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"create database {name}")
        try:
            yield urlsplit(dsn)._replace(path=f"/{name}").geturl()
        finally:
            await connection.execute(f"drop database {name} with (force)")
    finally:
        await connection.close()


async def postmaster_pid(dsn: str) -> int:
    """The process id of the server, which must run on this machine."""
    connection = await asyncpg.connect(dsn)
    try:
        folder = await connection.fetchval("show data_directory")
    finally:
        await connection.close()
    return int(Path(folder, "postmaster.pid").read_text().splitlines()[0])
