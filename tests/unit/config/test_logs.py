"""What a log line holds, and what it never does."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from sagad_server.logs import configure_logs, saga_logger

DSN = "postgresql://sagad:hunter2@db:5432/sagad?password=hunter2"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("asyncio", "asyncpg", "grpc"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def connect() -> None:
    raise ConnectionError(f"no answer from {DSN}")


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_saga_in_it(stream: io.StringIO) -> None:
    configure_logs("info", "json", stream)
    saga_logger("sagad_server.engine", "default", "order-1").info("parked", revision=7, reason="line\nbreak")
    (line,) = lines(stream)
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "level": "info",
        "logger": "sagad_server.engine",
        "event": "parked",
        "namespace": "default",
        "saga_id": "order-1",
        "revision": 7,
        "reason": "line\nbreak",
    }


def test_the_context_is_in_every_line_of_it(stream: io.StringIO) -> None:
    configure_logs("info", "json", stream)
    with structlog.contextvars.bound_contextvars(saga_id="order-2"):
        structlog.get_logger("api").info("called")
        logging.getLogger("asyncpg").warning("slow %s", "statement")
    structlog.get_logger("api").info("later")
    assert [(line["event"], line.get("saga_id")) for line in lines(stream)] == [
        ("called", "order-2"),
        ("slow statement", "order-2"),
        ("later", None),
    ]


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_is_logged(stream: io.StringIO, form: str) -> None:
    configure_logs("debug", form, stream)
    log = structlog.get_logger("test")
    log.info(
        "connecting to " + DSN, dsn=DSN, password="hunter2", completion_token="hunter2", nested={"secret": "hunter2"}
    )
    log.info("listed", targets=[DSN], error=ValueError(DSN))
    logging.getLogger("asyncpg").warning("lost %s", DSN)
    try:
        connect()
    except ConnectionError:
        log.exception("failed")
        logging.getLogger("grpc").exception("failed")
    text = stream.getvalue()
    assert "hunter2" not in text
    assert text.count("no answer from postgresql://sagad:***@db:5432/sagad?password=***") >= 2


def test_the_level_is_that_of_the_configuration(stream: io.StringIO) -> None:
    configure_logs("warning", "json", stream)
    structlog.get_logger("test").info("unheard")
    logging.getLogger("grpc").info("unheard")
    structlog.get_logger("test").warning("heard")
    assert [line["event"] for line in lines(stream)] == ["heard"]


@pytest.mark.parametrize("library", ["asyncio", "aiokafka.conn"])  # Kafka's would show the password of SASL PLAIN
def test_debug_is_for_sagad_and_not_for_the_libraries(stream: io.StringIO, library: str) -> None:
    configure_logs("debug", "json", stream)
    structlog.get_logger("sagad_server").debug("heard")
    logging.getLogger(library).debug("unheard")
    assert [line["event"] for line in lines(stream)] == ["heard"]


def test_warnings_are_logged(stream: io.StringIO) -> None:
    configure_logs("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("careful", UserWarning, stacklevel=1)
    assert "careful" in str(lines(stream)[0]["event"])


def test_configuring_again_replaces_what_was_there(stream: io.StringIO) -> None:
    configure_logs("info", "console", stream)
    later = io.StringIO()
    configure_logs("info", "json", later)
    structlog.get_logger("test").info("once")
    assert stream.getvalue() == ""
    assert [line["event"] for line in lines(later)] == ["once"]
