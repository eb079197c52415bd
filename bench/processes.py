"""Processes of the bench: started, awaited, stopped, and what CPU time they have used."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 20.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PYTHON = sys.executable
OUT = Path(__file__).parent / "out"
SAGAD = str(Path(sys.executable).with_name("sagad"))


@asynccontextmanager
async def running(*command: str, log: IO[bytes] | None = None) -> AsyncIterator[Process]:
    """Runs a command and ends it with SIGTERM. With `log`, both outputs go there."""
    output = {"stdout": PIPE} if log is None else {"stdout": log, "stderr": log}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SAGAD_")}
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, env=environment, **output)
    try:
        yield process
    finally:
        await stop(process)


async def stop(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
    except TimeoutError:
        process.kill()
        await process.wait()


async def port_of(process: Process) -> int:
    """Waits for the line `ready PORT`. Raises RuntimeError if the process ends, or says something else, instead."""
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), READY_WITHIN_S)).decode().split()
    if len(line) != 2 or line[0] != "ready":
        raise RuntimeError(f"a process of the bench did not start; it said {line}")
    return int(line[1])


async def output_of(*command: str) -> str:
    """Runs a command to its end. Raises RuntimeError if it fails."""
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return out.decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_s(pid: int) -> float:
    """CPU seconds of a process with all its threads."""
    user, system = _stat(pid)[11:13]
    return (user + system) / TICKS_PER_S


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children, those of the past included."""
    total = sum(_stat(pid)[11:15]) / TICKS_PER_S
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if _stat(int(path.name))[1] == pid:
                total += cpu_s(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile, and is in its parent's account now
    return total


def rss_mib(pid: int) -> float:
    """Memory of a process that is resident."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _stat(pid: int) -> list[int]:
    """The fields of /proc/PID/stat (see proc(5)) after the name; the state, a letter, becomes 0."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return [0, *map(int, fields[1:])]
