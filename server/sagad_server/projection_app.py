"""`sagad project`: the projection's parts put together."""

import asyncio
import signal
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry

from sagad_server.config import Config, ConfigError
from sagad_server.http_server import HttpServer
from sagad_server.kafka_connection import kafka_connection
from sagad_server.projection.metrics import ProjectionMetrics
from sagad_server.projection.settings import ProjectionSettings
from sagad_server.system import SystemClock, SystemRandom

if TYPE_CHECKING:
    from sagad_server.projection.projector import Projector

log = structlog.get_logger(__name__)


def projection_settings(config: Config) -> ProjectionSettings:
    """What the projection is told of a configuration. Raises ConfigError."""
    needed = {
        "kafka.bootstrap_servers": config.kafka.bootstrap_servers,
        "mongo.url": config.mongo.url.get_secret_value(),
    }
    if missing := [f"{key}: is required for sagad project" for key, value in needed.items() if not value]:
        raise ConfigError(missing)
    return ProjectionSettings(
        bootstrap_servers=config.kafka.bootstrap_servers,
        connection=kafka_connection(config.kafka),
        topic=config.mirror.topic,
        group_id=config.projection.group_id,
        member=config.node.name,
        mongo_url=config.mongo.url.get_secret_value(),
        database=config.mongo.database,
        marks_gaps=config.projection.gaps == "mark",
    )


async def run_project(config: Config) -> None:
    """Projects until SIGTERM or SIGINT. Raises ConfigError, ListenError, ProjectionStopped."""
    settings = projection_settings(config)
    registry, stopping = CollectorRegistry(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    projector = new_projector(settings, ProjectionMetrics(registry))
    http = HttpServer(config.http.address, registry, lambda: not (stopping.is_set() or projector.fault))
    try:
        http.start()
        log.info("projecting", topic=settings.topic, group_id=settings.group_id, http_port=http.port)
        await _run_until(projector, stopping)
    finally:
        http.stop()
        await projector.close()
    log.info("stopped")


def new_projector(settings: ProjectionSettings, metrics: ProjectionMetrics) -> "Projector":
    """Raises ConfigError where a library is missing, or the URL of MongoDB is wrong."""
    try:
        from sagad_server.projection.projector import Projector, UrlRefused
    except ImportError as error:
        needs = "sagad project needs the extras `kafka` and `mongo`: pip install 'sagad[server,kafka,mongo]'"
        raise ConfigError([f"{needs} ({error})"]) from error
    try:
        return Projector(settings, SystemClock(), SystemRandom(), metrics)
    except UrlRefused as error:
        raise ConfigError([f"mongo.url: {error}"]) from None


async def _run_until(projector: "Projector", stopping: asyncio.Event) -> None:
    running = asyncio.create_task(projector.run())
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    failed = running.done()
    for task in (running, asked):
        task.cancel()
    await asyncio.gather(running, asked, return_exceptions=True)
    if failed:
        running.result()
