"""Runs sagactl as a person or a script does: in a process of its own, with pipes or with a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import struct
import sys
import termios
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """How a run of sagactl ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


class Sagactl:
    """sagactl against one server."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.words = (sys.executable, "-m", "sagad_client.cli")
        """What runs it."""

    def environment(self, extra: dict[str, str]) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG", "PYTHONPATH"}}
        return {**kept, "SAGACTL_SERVER": self.address, "TERM": "xterm-256color", **extra}

    async def spawn(self, *arguments: str, **streams: Any) -> asyncio.subprocess.Process:
        """Start sagactl with pipes unless the streams say otherwise."""
        environment = self.environment(streams.pop("env", {}))
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        return await asyncio.create_subprocess_exec(*self.words, *arguments, env=environment, **{**pipes, **streams})

    async def __call__(self, *arguments: str, stdin: str = "", **env: str) -> Result:
        """Run sagactl with pipes to its end."""
        process = await self.spawn(*arguments, env=env)
        out, err = await process.communicate(stdin.encode())
        return Result(process.returncode or 0, out.decode(), err.decode())

    async def in_terminal(self, *arguments: str, **env: str) -> Result:
        """Run sagactl to its end in a terminal of 120 columns; `out` has all it wrote, control sequences too."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        process = await self.spawn(*arguments, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        reading = asyncio.create_task(asyncio.to_thread(_read_all, master))
        await process.wait()
        out = await reading
        os.close(master)
        return Result(process.returncode or 0, out.decode(), "")


def _read_all(descriptor: int) -> bytes:
    chunks = []
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # Linux: the other side of the terminal is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)
