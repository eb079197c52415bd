"""The tutorial's blocks of code do what the tutorial says, as written."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.page_runner import PageRunner
from support.pages import DOCS
from support.processes import free_port

from sagad_server.embedded import EmbeddedPostgres

PAGE = DOCS / "tutorial" / "first-participant.md"


@pytest.fixture
def reader(folder: Path, postgres_dsn: str) -> Iterator[PageRunner]:
    """Someone whose machine has other ports free, and who keeps the data of `sagad dev` in a folder of their own."""
    (folder / ".venv").symlink_to(sys.prefix)
    data = folder / "data"
    sagad, http, cinema = (f"127.0.0.1:{free_port()}" for _ in range(3))
    elsewhere = f"sagad dev --data-dir {data} --set grpc.address={sagad} --set http.address={http}"
    replace = {
        "sagad dev": elsewhere,
        "127.0.0.1:7400": sagad,
        "127.0.0.1:7421": cinema,
        "postgresql://postgres@127.0.0.1:5432/postgres": postgres_dsn,
    }
    runner = PageRunner(PAGE, folder, replace, {"SAGACTL_SERVER": sagad})
    try:
        yield runner
    finally:
        runner.stop()
        EmbeddedPostgres(data).stop()


async def test_the_tutorial_works_as_written(reader: PageRunner) -> None:
    await asyncio.to_thread(reader.run)
    assert set(reader.background) == {"sagad", "cinema"}
