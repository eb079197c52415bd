"""The mirror's parts put together: within a node, or as a process of its own (`sagad mirror`)."""

import asyncio
import signal
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from prometheus_client import CollectorRegistry

from sagad_server.api.mirroring import Mirroring
from sagad_server.config import Config, ConfigError
from sagad_server.domain.validation import ValidationLimits
from sagad_server.engine.ports import Clock, Random
from sagad_server.http_server import HttpServer
from sagad_server.kafka_connection import kafka_connection
from sagad_server.mirror.metrics import MirrorMetrics
from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.postgres.connect import unavailable
from sagad_server.storage.postgres.migrate import require_current
from sagad_server.storage.postgres.mirror import MirrorTables
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.postgres.store import PostgresStore
from sagad_server.storage.store import Store
from sagad_server.system import SystemClock, SystemRandom
from sagad_server.upkeep import when_postgres_is_there

if TYPE_CHECKING:
    from sagad_server.mirror.mirror import Mirror

log = structlog.get_logger(__name__)


def new_mirror(config: Config, tables: MirrorTables, clock: Clock, random: Random, metrics: MirrorMetrics) -> "Mirror":
    """The mirror that the configuration asks for. Raises ConfigError where its library, or Kafka's address, is
    missing."""
    try:
        from sagad_server.mirror.kafka import AioKafka
        from sagad_server.mirror.mirror import Mirror
    except ImportError as error:
        raise ConfigError([f"mirror: needs the extra `kafka` (pip install 'sagad[server,kafka]'): {error}"]) from error
    if not config.kafka.bootstrap_servers:
        raise ConfigError(["kafka.bootstrap_servers: is required for a mirror"])
    settings = mirror_settings(config)
    return Mirror(settings, tables, AioKafka(settings), clock, random, metrics)


def mirror_settings(config: Config) -> MirrorSettings:
    """What the mirror is told of a configuration. Raises ConfigError."""
    mirror = config.mirror
    return MirrorSettings(
        bootstrap_servers=config.kafka.bootstrap_servers,
        connection=kafka_connection(config.kafka),
        topic=mirror.topic,
        partitions=mirror.partitions,
        replication_factor=mirror.replication_factor,
        retention_s=mirror.retention,
        makes_topics=mirror.make_topics,
        json=mirror.format == "json",
        payloads=mirror.payloads,
        source=f"/sagad/{quote(config.service.name, safe='')}",
        relay_name=config.node.name,
        lease_s=config.node.lease,
        interval_s=mirror.interval,
    )


class NodeMirror:
    """The mirror within a node, where the configuration asks for one, and the calls about mirrors wherever they run."""

    def __init__(self, config: Config, store: Store, clock: Clock, random: Random, registry: CollectorRegistry) -> None:
        """Its metrics are there in any case, so that they can be asked for. Raises ConfigError."""
        metrics = MirrorMetrics(registry)
        self._store = store
        self._tables = store.mirror() if isinstance(store, PostgresStore) else None
        self._mirror: Mirror | None = None
        self._running: asyncio.Task[None] | None = None
        if config.mirror.enabled and self._tables is not None:
            self._mirror = new_mirror(config, self._tables, clock, random, metrics)

    def calls(self, limits: ValidationLimits) -> Mirroring:
        return Mirroring(self._store, self._tables, limits, lambda: "" if self._mirror is None else self._mirror.fault)

    def start(self) -> None:
        if self._mirror is not None:
            self._running = asyncio.get_running_loop().create_task(self._mirror.run())

    async def stop(self) -> None:
        """Hands its lanes over."""
        if self._mirror is None or self._running is None:
            return
        self._running.cancel()  # else its next turn would take lanes again
        await asyncio.gather(self._running, return_exceptions=True)
        await self._mirror.stop()


async def run_mirror(config: Config) -> None:
    """Relays until SIGTERM or SIGINT. Raises ConfigError, ListenError, SchemaTooOld, SchemaTooNew, Unavailable."""
    registry, stopping = CollectorRegistry(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    pool = Pool(PostgresSettings(dsn=config.postgres.dsn.get_secret_value(), pool_max_size=4))
    metrics, clock, random = MirrorMetrics(registry), SystemClock(), SystemRandom()
    mirror = new_mirror(config, MirrorTables(pool), clock, random, metrics)
    http = HttpServer(config.http.address, registry, lambda: not stopping.is_set())
    try:
        await when_postgres_is_there(lambda: _open(pool), random)
        http.start()
        log.info("mirroring", topic=config.mirror.topic, http_port=http.port)
        await _run_until(mirror, stopping)
    finally:
        http.stop()
        await pool.close()
    log.info("stopped")


async def _run_until(mirror: "Mirror", stopping: asyncio.Event) -> None:
    running = asyncio.create_task(mirror.run())
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    failed = running.done()
    for task in (running, asked):
        task.cancel()
    await asyncio.gather(running, asked, return_exceptions=True)
    await mirror.stop()
    if failed:
        running.result()


async def _open(pool: Pool) -> None:
    with unavailable():
        await pool.open()
    async with pool.connection() as connection:
        await require_current(connection)
