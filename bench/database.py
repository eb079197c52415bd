"""The PostgreSQL server that both are measured on, and a fresh database on it for each run."""

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

_numbers = itertools.count(1)


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
