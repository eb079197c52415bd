"""A MongoDB for the tests: a server in Java that speaks its protocol, or the one of the environment."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.maven import JarsUnavailableError, fetched_jars
from support.postgres import new_folder
from support.processes import free_port

SERVER_VARIABLE = "SAGAD_TEST_MONGO"
START_TIMEOUT_S = 90.0
_FOLDER = Path(__file__).parent / "mongo_jars"
_JAVA = ("java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


def mongo_jars() -> Path:
    """The folder with the jars, filled by Maven the first time. Raises JarsUnavailableError."""
    return fetched_jars(_FOLDER / "pom.xml", "sagad-mongo", SERVER_VARIABLE)


@contextmanager
def mongo_server() -> Iterator[str]:
    """The URL of a MongoDB for all tests: that of the environment, else one of our own, without data. Skips where
    there can be none."""
    if url := os.environ.get(SERVER_VARIABLE):
        yield url
        return
    try:
        jars = mongo_jars()
    except JarsUnavailableError as error:
        pytest.skip(str(error))
    port = free_port()
    words = [*_JAVA, "-cp", f"{jars}/*", str(_FOLDER / "MongoServerLauncher.java"), str(port)]
    with new_folder() as folder, (folder / "mongo.log").open("wb") as log:
        child = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            _wait_until_it_listens(child, port, folder / "mongo.log")
            yield f"mongodb://127.0.0.1:{port}"
        finally:
            child.kill()
            child.wait()


def _wait_until_it_listens(child: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while True:
        assert child.poll() is None, f"the server has ended:\n{log.read_text()[-3000:]}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < give_up_at, f"the server does not listen:\n{log.read_text()[-3000:]}"
        time.sleep(0.05)
