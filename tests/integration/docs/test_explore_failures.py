"""The page on exploring failures does what it says, as written."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.page_runner import PageRunner
from support.pages import DOCS

PAGE = DOCS / "how-to" / "explore-failures.md"


@pytest.fixture
def reader(running: Any, folder: Path) -> Iterator[PageRunner]:
    runner = PageRunner(PAGE, folder, {}, {"SAGACTL_SERVER": running.address})
    try:
        yield runner
    finally:
        runner.stop()


async def test_the_page_works_as_written(reader: PageRunner) -> None:
    await asyncio.to_thread(reader.run)
