"""A folder that PostgreSQL's account can enter."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgres import new_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path
