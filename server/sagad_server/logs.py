"""Structured logs on stderr, of sagad and of the libraries alike, with secrets hidden.

Log with `structlog.get_logger(__name__)`; what concerns one saga with a `saga_logger`, or within
`structlog.contextvars.bound_contextvars(...)`.
"""

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from sagad_server.config_values import HIDDEN

_HANDLER = "sagad"
# Their debug messages are about themselves; aiokafka's hold what it sends, a password with it.
_CHATTY = ("aiokafka", "asyncio", "asyncpg", "grpc")
_SECRET_KEY = re.compile(
    r"(?i)(password|secret|authorization|credential|private_key|api_key|dsn$|^token$|completion_token)"
)
_SECRET_IN_URL = re.compile(r"(?<=://)([^\s:/@]*):\S*@")
_SECRET_IN_PARAMETER = re.compile(r"(?i)(password=)[^\s&'\"]+")


def configure_logs(level: str, format: str, stream: TextIO | None = None) -> None:  # noqa: A002 - as in the configuration
    """Log from `level` (debug, info, warning, error) on, as "json" or for the "console", to stderr.

    Called again it replaces what it did before, and leaves other handlers alone.
    """
    stream = stream or sys.stderr
    console = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    as_json = structlog.processors.JSONRenderer(ensure_ascii=False)
    renderers: list[structlog.typing.Processor] = [console] if format == "console" else [_order, as_json]
    common: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.set_name(_HANDLER)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [*(each for each in root.handlers if each.get_name() != _HANDLER), handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    logging.captureWarnings(capture=True)


def saga_logger(name: str, namespace: str, saga_id: str) -> FilteringBoundLogger:
    """The logger `name` for what concerns this saga."""
    logger: FilteringBoundLogger = structlog.get_logger(name, namespace=namespace, saga_id=saga_id)
    return logger


def hide_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Hide values whose key says that they are secret, and passwords within texts, tracebacks included."""
    return {key: HIDDEN if _SECRET_KEY.search(key) else _without_secrets(value) for key, value in event.items()}


def _order(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {key: event[key] for key in ("timestamp", "level", "logger", "event") if key in event} | dict(event)


def _without_secrets(value: object) -> object:
    if isinstance(value, str):
        if "://" in value or "assword" in value:
            return _SECRET_IN_PARAMETER.sub(rf"\1{HIDDEN}", _SECRET_IN_URL.sub(rf"\1:{HIDDEN}@", value))
        return value
    if isinstance(value, dict):
        return {key: HIDDEN if _SECRET_KEY.search(str(key)) else _without_secrets(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    if isinstance(value, BaseException):
        return _without_secrets(f"{type(value).__name__}: {value}")
    return value
