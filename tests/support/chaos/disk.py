"""A small disk that can be filled: a tmpfs in a mount namespace of its own."""

import asyncio
import ctypes
import errno
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_CLONE_NEWNS = 0x00020000
_MIB = 1024 * 1024


class Disk:
    """The folder's file system as one thread sees it, and what that thread starts; it goes with the thread.

    Raises PermissionError where this account may not mount: see `can_mount`.
    """

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._thread.submit(_mount, folder, size_mib).result()

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Runs it where the disk is seen."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def fill(self) -> None:
        """Leaves no room for anybody."""
        await self.run(self._fill)

    def _fill(self) -> None:
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(_MIB))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    async def free(self) -> None:
        await self.run(self._filler.unlink)

    def close(self) -> None:
        self._thread.shutdown()


def _mount(folder: Path, size_mib: int) -> None:
    """In the calling thread's own namespace, of which the rest of this process sees nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare(CLONE_NEWNS): {os.strerror(code)}")
    for words in (("--make-rprivate", "/"), ("-t", "tmpfs", "-o", f"size={size_mib}m,mode=0755", "tmpfs", str(folder))):
        result = subprocess.run(["mount", *words], check=False, capture_output=True, text=True)
        if result.returncode != 0:
            raise PermissionError(errno.EPERM, result.stderr.strip())


def can_mount(folder: Path) -> str:
    """Why not; empty if it can be done here."""
    try:
        Disk(folder, 1).close()
    except OSError as error:
        return f"a small disk needs a private mount namespace: {error}"
    return ""
