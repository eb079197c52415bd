"""An example participant as a process that is started again whenever it ends."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from support.processes import environment
from support.proxy import Proxy


class ParticipantProcess:
    """Reached through a proxy, whose address stays the same over its deaths."""

    def __init__(self, name: str, dsn: str, sagad: str, line: Proxy, log: Path) -> None:
        self.name = name
        self.line = line
        self.deaths = 0
        self.serves = asyncio.Event()
        self._log = log
        self._words = ("-m", "sagad_examples", "--dsn", dsn, "--port", "0", "--sagad", sagad, "--only", name)
        self._process: asyncio.subprocess.Process | None = None

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):  # it has died by itself
            self._process.kill()

    async def _keep(self) -> None:
        while True:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, *self._words, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment()
                )
            assert self._process.stdout is not None
            line = (await self._process.stdout.readline()).decode()
            if line.startswith("ready: "):
                self.line.target_port = int(line.strip().rpartition(":")[2])
                self.serves.set()
            await self._process.wait()
            self.serves.clear()
            self.deaths += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["ParticipantProcess"]:
        keeper = asyncio.create_task(self._keep())
        try:
            await asyncio.wait_for(self.serves.wait(), 60)
            yield self
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
                await self._process.communicate()
