"""The limits of a node, and what Redis does for it, put together as the configuration asks for them."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from sagad.v1.admin_service_pb2 import ComponentHealth
from sagad_server import config_guard
from sagad_server.config import Config, ConfigError
from sagad_server.engine.locks import Locks
from sagad_server.engine.ports import Clock, Random
from sagad_server.guard.bucket import Rate
from sagad_server.guard.leases import Leases, RedisAway
from sagad_server.guard.limit import Kind, Limit, Subject
from sagad_server.guard.local import LocalLimit
from sagad_server.guard.metrics import LimitMetrics
from sagad_server.guard.pace import Pace
from sagad_server.guard.rate_limits import RateLimits, Rates

if TYPE_CHECKING:
    from sagad_server.guard.lock_channel import LockChannel
    from sagad_server.guard.redis import RedisBuckets, RedisSettings


class NodeGuard:
    """`rates` is None where nothing is limited: then nothing here costs anything."""

    def __init__(self, config: Config, clock: Clock, random: Random, registry: CollectorRegistry) -> None:
        """Raises ConfigError where the library of Redis is missing."""
        self.rates: RateLimits | None = None
        self._clock = clock
        self._random = random
        self._redis = redis_settings(config.redis) if config.redis.url is not None else None
        self._channel: LockChannel | None = None
        self._metrics = LimitMetrics(registry)
        self._buckets: RedisBuckets | None = None if self._redis is None else new_buckets(self._redis)
        self._leases: Leases | None = None
        limits = config.rate_limits
        if not limits.any:
            return
        if self._buckets is not None:
            is_open = limits.when_redis_is_away == "open"
            self._leases = Leases(self._buckets, clock, random, self._metrics, open_when_away=is_open)
        self.rates = RateLimits(_rates(limits), self._new_limit, self._metrics)

    def _new_limit(self, subject: Subject) -> Limit:
        return LocalLimit(subject, self._clock) if self._leases is None else self._leases.new_limit(subject)

    def follow(self, locks: Locks) -> None:
        """Tells other nodes of locks that have passed to their sagas, and hears of it from them, by Redis."""
        if self._redis is not None:
            from sagad_server.guard.lock_channel import LockChannel

            self._channel = channel = LockChannel(self._redis, self._clock, self._random, locks.wake)
            locks.on_passed = channel.tell
            locks.told = lambda: channel.listens

    def paces(self, config: Config) -> dict[str, Pace]:
        """By participant, of those that are limited."""
        if self.rates is None:
            return {}
        limits = {name: self.rates.limit(Kind.PARTICIPANT, name) for name in config.participants}
        return {name: Pace(limit, self._clock, self._metrics) for name, limit in limits.items() if limit is not None}

    async def run(self) -> None:
        """For ever, if Redis is used."""
        async with asyncio.TaskGroup() as tasks:
            for part in (self._leases, self._channel):
                if part is not None:
                    tasks.create_task(part.run())

    async def redis_health(self) -> list[ComponentHealth]:
        """Whether Redis answers; empty where it is not used. sagad does without it, as the policy says."""
        if self._buckets is None:
            return []
        fault = ""
        try:
            await self._buckets.ping()
        except RedisAway as error:
            fault = str(error)
        return [ComponentHealth(name="redis", healthy=not fault, message=fault)]

    async def close(self) -> None:
        for part in (self._channel, self._buckets):
            if part is not None:
                await part.close()


def new_buckets(settings: "RedisSettings") -> "RedisBuckets":
    from sagad_server.guard.redis import RedisBuckets

    return RedisBuckets(settings)


def redis_settings(redis: config_guard.Redis) -> "RedisSettings":
    """How to reach the Redis that the configuration names. Raises ConfigError where its library is missing."""
    try:
        from sagad_server.guard.redis import RedisSettings
    except ImportError as error:
        text = f"redis.url: needs the extra `redis` (pip install 'sagad[server,redis]'): {error}"
        raise ConfigError([text]) from error
    assert redis.url is not None
    return RedisSettings(
        url=redis.url.get_secret_value(),
        key_prefix=redis.key_prefix,
        ca_file=redis.ca_file,
        timeout_s=redis.timeout,
    )


def _rates(limits: config_guard.RateLimits) -> Mapping[Kind, Rates]:
    kinds: dict[Kind, config_guard.ClientRates | config_guard.DefinitionRates | config_guard.ParticipantRates] = {
        Kind.CLIENT: limits.clients,
        Kind.DEFINITION: limits.definitions,
        Kind.PARTICIPANT: limits.participants,
    }
    return {
        kind: Rates(
            _rate(each.default) if each.default else None,
            {name: _rate(rate) for name, rate in each.overrides.items()},
        )
        for kind, each in kinds.items()
    }


def _rate(rate: config_guard.Rate) -> Rate:
    return Rate(rate.per_second, rate.burst)
