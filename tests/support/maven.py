"""Jars of servers in Java, which Maven brings once."""

import hashlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path

MAVEN_TIMEOUT_S = 600.0


class JarsUnavailableError(Exception):
    """There are none here; the message says what is missing."""


def fetched_jars(pom: Path, name: str, server_variable: str) -> Path:
    """The folder in the user's cache with what a POM names, filled the first time. Raises JarsUnavailableError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / f"{name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    for program in ("java",) if folder.exists() else ("java", "mvn"):
        if shutil.which(program) is None:
            raise JarsUnavailableError(f"{program} is not on the PATH, and {server_variable} names no server")
    if not folder.exists():
        _fetch(pom, folder)
    return folder


def _fetch(pom: Path, folder: Path) -> None:
    """Whole or not at all: several test runs may do this at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    words = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S)
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise JarsUnavailableError(f"Maven could not fetch {pom}:\n{(done.stdout + done.stderr)[-2000:]}")
    try:
        partial.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(partial)
