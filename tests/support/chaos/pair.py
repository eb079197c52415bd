"""Two PostgreSQL servers: one takes writes, the other follows it."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import asyncpg

from sagad_server.embedded import EmbeddedPostgres
from sagad_server.embedded_programs import Programs
from support.chaos.disk import Disk
from support.chaos.waiting import until

SETTINGS = {"max_wal_size": "64MB", "min_wal_size": "32MB", "wal_keep_size": "32MB", "max_connections": "200"}
DISK_MIB = 320


class Server:
    """One of the two, on a disk of its own where such can be made."""

    def __init__(self, folder: Path, *, small_disk: bool) -> None:
        folder.mkdir()
        self.disk = Disk(folder, DISK_MIB) if small_disk else None
        self.postgres = EmbeddedPostgres(folder, fsync=False)
        self._data = folder / "data"

    async def _run(self, function: Callable[..., None], *arguments: object) -> None:
        """Where its disk is seen, and never on the loop, which serves proxies."""
        if self.disk is None:
            await asyncio.to_thread(function, *arguments)
        else:
            await self.disk.run(function, *arguments)

    async def start(self) -> None:
        await self._run(self.postgres.start)

    async def stop(self) -> None:
        """In order; `start` finds all again."""
        await self._run(self.postgres.stop)

    @property
    def dsn(self) -> str:
        return self.postgres.dsn

    @property
    def port(self) -> int:
        return int(self.dsn.rpartition(":")[2].partition("/")[0])

    async def kill(self) -> None:
        """SIGKILL of all its processes, as if its machine were gone."""
        await self._run(self._kill)

    def _kill(self) -> None:
        pid = self.postgres.pid
        assert pid is not None, "it does not run"
        for one in (pid, *_children(pid)):
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:  # it has followed the first one by itself
                continue

    async def follow(self, dsn: str) -> None:
        """Throws its data away, and starts as the standby of the server there."""
        await self._run(self._copy, dsn)
        await self.start()

    def _copy(self, dsn: str) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        programs = Programs()
        folder = self.postgres.folder
        folder.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="copy-", dir=folder))
        programs.give(fresh)
        words = ("-D", fresh, "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-d", dsn)
        result = programs.run("pg_basebackup", *words, cwd=folder)
        assert result.returncode == 0, result.stderr
        fresh.rename(self._data)

    async def execute(self, *statements: str) -> None:
        """Each in a transaction of its own."""
        connection = await asyncpg.connect(self.dsn, timeout=10)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            connection.terminate()

    async def value(self, sql: str) -> object:
        connection = await asyncpg.connect(self.dsn, timeout=10)
        try:
            return await connection.fetchval(sql)
        finally:
            connection.terminate()

    async def close(self) -> None:
        await self.stop()
        if self.disk is not None:
            self.disk.close()


class Pair:
    """`primary` takes writes. Synchronous: it acknowledges nothing that its standby does not have."""

    def __init__(self, folder: Path, *, synchronous: bool, small_disks: bool) -> None:
        self.servers = [Server(folder / name, small_disk=small_disks) for name in ("postgres-a", "postgres-b")]
        self.primary, self.standby = self.servers
        self._synchronous = synchronous

    async def start(self) -> None:
        """The primary alone."""
        await self.primary.start()
        await self.primary.execute(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in SETTINGS.items()))
        await self.primary.stop()
        await self.primary.start()

    async def make_standby(self, through: str | None = None) -> None:
        """Makes the other server the standby, and waits until it has caught up.

        through: the DSN by which it follows, if not directly.
        """
        await self.standby.follow(through or self.primary.dsn)
        if self._synchronous:
            await self._set_synchronous("*")
        wanted = "sync" if self._synchronous else "async"
        state = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"

        async def follows() -> bool:
            return await self.primary.value(state) == wanted

        await until(follows, 60, "the standby follows")

    async def _set_synchronous(self, names: str) -> None:
        await self.primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")

    async def fail_over(self) -> None:
        """The primary's machine is gone, and stays so; the standby takes its place, without one of its own."""
        await self.primary.kill()
        self.primary, self.standby = self.standby, self.primary
        assert await self.primary.value("SELECT pg_promote(true, 60)") is True
        await self._set_synchronous("")

    async def close(self) -> None:
        for server in self.servers:
            await server.close()


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if int(parent) == pid:
            found.append(int(stat.parent.name))
    return found
