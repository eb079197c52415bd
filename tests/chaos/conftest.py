"""For tests that take minutes: what the person who runs them is told."""

import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Writes a line to stderr, past pytest, which keeps what a test prints to itself if the test passes."""

    def line(text: str) -> None:
        with capfd.disabled():
            print(f"\n{text}", file=sys.stderr, flush=True)

    return line
