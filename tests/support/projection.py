"""`sagad project` as a process, and what is in the model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families
from pymongo import AsyncMongoClient

from support.processes import environment, free_port

Documents = dict[str, dict[str, Any]]
"""By uid."""


async def documents(url: str, database: str) -> Documents:
    """The whole model."""
    async with AsyncMongoClient[dict[str, Any]](url, tz_aware=True) as client:
        return {each["_id"]: each async for each in client[database]["sagas"].find()}


class ProjectProcess:
    """`sagad project`, to be killed for real. It knows no PostgreSQL. `kafka`: its servers, or the whole section."""

    def __init__(
        self,
        folder: Path,
        kafka: str | Mapping[str, object],
        topic: str,
        mongo_url: str,
        database: str,
        group_id: str = "first",
        node_name: str = "only",
    ) -> None:
        self._http = f"127.0.0.1:{free_port()}"
        config = {
            "http": {"address": self._http},
            "node": {"name": node_name},
            "kafka": {"bootstrap_servers": kafka} if isinstance(kafka, str) else dict(kafka),
            "mirror": {"topic": topic},
            "mongo": {"url": mongo_url, "database": database},
            "projection": {"group_id": f"{topic}-{group_id}"},
        }
        self._config = folder / f"project-{group_id}-{node_name}.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self._log = folder / f"project-{group_id}-{node_name}.log"
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "sagad_server.cli", "project", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self.child = subprocess.Popen(words, stdout=log, stderr=log, env=environment())

    def kill(self) -> None:
        """SIGKILL."""
        self.child.kill()
        self.child.wait()

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.child.terminate()
        return await asyncio.to_thread(self.child.wait, 60)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def healthy(self) -> bool:
        return await asyncio.to_thread(self._get, "/health") is not None

    async def metric(self, name: str) -> float | None:
        """The sum over its labels; None where nobody answers, or there are none."""
        text = await asyncio.to_thread(self._get, "/metrics") or ""
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        values = [sample.value for sample in samples if sample.name == name]
        return sum(values) if values else None

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://{self._http}{path}", timeout=10) as answer:
                text: str = answer.read().decode()
                return text
        except (urllib.error.URLError, ConnectionError):
            return None

    async def until(self, name: str, least: float) -> None:
        """Returns when a metric is there, and has that value or more."""
        while (await self.metric(name) or 0) < least:
            assert self.child.poll() is None, f"it has ended:\n{self.log()[-3000:]}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def projecting(*arguments: Any, **named: Any) -> AsyncIterator[ProjectProcess]:
    """A running one, gone afterwards."""
    process = ProjectProcess(*arguments, **named)
    try:
        yield process
    finally:
        process.kill()
