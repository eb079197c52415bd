"""Connections, and what it means when they fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.pool import PoolConnectionProxy

from sagad_server.domain.errors import Unavailable
from sagad_server.storage.postgres.settings import PostgresSettings

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
AnyConnection: TypeAlias = "Connection | PoolConnectionProxy[asyncpg.Record]"
"""One of our own, or one lent by the pool."""
RETRY_AFTER_MS = 1_000
CLOSE_TIMEOUT_S = 2

SESSION = {
    "application_name": "sagad",
    "search_path": "sagad",
    "timezone": "UTC",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "jit": "off",  # it costs more than it gains on statements of a millisecond
    # A client that has vanished gives up its locks.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    # Whatever limits the database or the role has are not meant for us.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
}

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,  # 08
    asyncpg.InvalidTransactionStateError,  # 25: the host takes no writes
    asyncpg.InvalidAuthorizationSpecificationError,  # 28
    asyncpg.InvalidCatalogNameError,  # 3D
    asyncpg.TransactionRollbackError,  # 40
    asyncpg.InsufficientResourcesError,  # 53
    asyncpg.ObjectNotInPrerequisiteStateError,  # 55
    asyncpg.OperatorInterventionError,  # 57
    asyncpg.PostgresSystemError,  # 58
)
"""What the driver raises when the database cannot be used just now."""

REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""Those that waiting seldom mends: a wrong password, or no such database."""


async def connect(settings: PostgresSettings, command_timeout_s: float | None = None, /, **session: str) -> Connection:
    """A connection to the host that takes writes. Raises one of AWAY."""
    return await asyncpg.connect(
        settings.dsn,
        timeout=settings.connect_timeout_s,
        command_timeout=command_timeout_s,
        target_session_attrs=SessionAttribute.read_write,
        server_settings=SESSION | session,
    )


async def close(connection: Connection) -> None:
    """Closes it, politely if the server listens."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    except AWAY:
        connection.terminate()


@contextmanager
def unavailable() -> Iterator[None]:
    """Turns the driver's errors into Unavailable where they say that the database is away."""
    try:
        yield
    except AWAY as error:
        if isinstance(error, ValueError):  # what the driver refuses to send is a bug of ours
            raise
        reason = "DATABASE_REFUSED" if isinstance(error, REFUSED) else None
        raise Unavailable(f"PostgreSQL: {describe(error)}", reason=reason, retry_after_ms=RETRY_AFTER_MS) from error


def describe(error: BaseException) -> str:
    """The error in one line, for people."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "no answer in time" if isinstance(error, TimeoutError) else words
