"""The text of a file, or of standard input, as something that can be read twice."""

from __future__ import annotations

import asyncio
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import TextIOWrapper
from os import fstat
from pathlib import Path
from typing import IO, TextIO

STANDARD_INPUT = Path("-")
_CHUNK = 1 << 20


@asynccontextmanager
async def text_of(file: Path) -> AsyncIterator[TextIO]:
    """Open a file; `-` is standard input, kept on disk until it has ended. Raises OSError, UnicodeDecodeError."""
    if file != STANDARD_INPUT:
        with file.open(encoding="utf-8") as text:
            yield text
        return
    with tempfile.TemporaryFile("w+b") as kept:
        await _keep_input(kept)
        kept.seek(0)
        yield TextIOWrapper(kept, encoding="utf-8")


async def _keep_input(kept: IO[bytes]) -> None:
    source = sys.stdin.buffer
    if stat.S_ISREG(fstat(source.fileno()).st_mode):  # an event loop cannot wait for a file, nor does it have to
        shutil.copyfileobj(source, kept)
        return
    # By the loop: while a thread waits for input, Ctrl-C has no effect.
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    try:
        while chunk := await reader.read(_CHUNK):
            kept.write(chunk)
    finally:
        transport.close()
