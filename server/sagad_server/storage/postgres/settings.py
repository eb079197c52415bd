"""How the store uses its database."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """`dsn` is a libpq URI; with several hosts, the one that takes writes is used. Times are in seconds."""

    dsn: str = field(repr=False)
    """May hold a password: never logged. A pooler between must be in session mode."""
    pool_min_size: int = 1
    pool_max_size: int = 10
    """Connections for reads and rare writes. The writer, the lock and `resolve` have one each besides."""
    max_inactive_connection_lifetime_s: float = 300.0
    command_timeout_s: float = 10.0
    """For statements of the pool. The writer's have none: see `writer_silence_s`."""
    connect_timeout_s: float = 5.0
    writer_silence_s: float = 5.0
    """After so long without an answer to a commit its connection is closed, and its outcome is unknown."""
