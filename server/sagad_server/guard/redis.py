"""The shared buckets in Redis (or Valkey), and how it is reached. Only this module and `lock_channel` know its
library: the extra `redis`."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sagad_server.guard.bucket import LEASE_US, PAUSE_S, Grant
from sagad_server.guard.leases import Ask, RedisAway

_SCRIPT = Path(__file__).parent / "lua" / "lease.lua"
_ANSWERS = 4
"""Numbers for each bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """How Redis is reached."""

    url: str = field(repr=False)
    """`redis://` or, with TLS, `rediss://`; holds a password."""
    key_prefix: str = "sagad"
    ca_file: Path | None = None
    """Of TLS; None: the system's authorities."""
    timeout_s: float = 0.2
    """Of a connection and of an answer together."""


def connect(settings: RedisSettings) -> Any:
    """A client. It makes a call once: whether it is made again is decided by who knows for how long Redis has been
    away."""
    tls: dict[str, Any] = {} if settings.ca_file is None else {"ssl_ca_certs": str(settings.ca_file)}
    return Redis.from_url(
        settings.url,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=settings.timeout_s,
        # Callers bound each call themselves. The library's own bound is asyncio.wait_for, which in Python 3.11 swallows
        # a cancellation that comes in the turn in which the call is done: whoever waits for its end waits for ever.
        socket_timeout=None,
        **tls,
    )


class RedisBuckets:
    """`SharedBuckets`. Its keys are `{PREFIX}:rate:KIND:NAME`; each expires once its bucket must be full."""

    def __init__(self, settings: RedisSettings) -> None:
        self._redis: Any = connect(settings)
        self._lease = self._redis.register_script(_SCRIPT.read_text())
        self._prefix = f"{{{settings.key_prefix}}}:rate"
        self._timeout_s = settings.timeout_s

    async def lease(self, asks: Sequence[Ask]) -> list[Grant]:
        """See SharedBuckets."""
        keys = [f"{ask.subject.kind.value}:{ask.subject.name}" for ask in asks]
        words: list[float] = []
        for ask in asks:
            words += [ask.subject.rate.per_second, ask.subject.rate.burst, ask.need, ask.ahead, ask.returned]
        found = await self._run(keys, words)
        return [Grant(*found[i : i + _ANSWERS]) for i in range(0, len(found), _ANSWERS)]

    async def ping(self) -> None:
        """See SharedBuckets. Asks for no token of a bucket of its own: a Redis that is full, or only reads, is away."""
        await self._run(["probe"], [1, 1, 0, 0, 0])

    async def close(self) -> None:
        await self._redis.aclose()

    async def _run(self, names: Sequence[str], words: Sequence[float]) -> list[int]:
        keys = [f"{self._prefix}:{name}" for name in names]
        try:
            async with asyncio.timeout(self._timeout_s):
                answers: list[int] = await self._lease(keys=keys, args=[LEASE_US, PAUSE_S, *words])
                return answers
        except (RedisError, OSError, TimeoutError) as error:
            # Whoever is there next time may be another one. The connection of this call is closed by the library.
            with suppress(RedisError, OSError):  # they may be broken already
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            why = str(error) or f"no answer within {self._timeout_s:g} s"
            raise RedisAway(f"{type(error).__name__}: {why}") from error
