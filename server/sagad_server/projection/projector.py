"""Reads the topic and writes the model, for as long as it runs."""

from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from sagad_server.engine.ports import Clock, Random
from sagad_server.projection.metrics import ProjectionMetrics
from sagad_server.projection.model import Conflict, Model
from sagad_server.projection.settings import ProjectionSettings
from sagad_server.projection.topic import TopicMissing, TopicReader

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_LOOK_EVERY_S = 1.0
_LONGEST_FAULT = 1_000
_CONNECT_MS = 2_000
_OPERATION_MS = 20_000

log = structlog.get_logger(__name__)


class UrlRefused(Exception):  # noqa: N818 - by the library; server and client each have one: neither imports the other
    """MongoDB's URL cannot be used. The message does not hold it: there may be a password in it."""


class Projector:
    """One process's share of the topic. `run` until cancelled, then `close`."""

    def __init__(self, settings: ProjectionSettings, clock: Clock, random: Random, metrics: ProjectionMetrics) -> None:
        """Connects to nothing yet. Raises UrlRefused."""
        self._settings = settings
        self._client = _client(settings.mongo_url)
        self._model = Model(self._client, settings.database, marks_gaps=settings.marks_gaps)
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self.fault = ""
        """Why nothing is projected just now; empty: it is, as far as anybody knows."""

    async def run(self) -> None:
        """Goes on by itself wherever Kafka or MongoDB is away. Raises ProjectionStopped."""
        failures = 0
        while True:
            began_s = self._clock.monotonic()
            try:
                await self._project()
            except (PyMongoError, Conflict) as error:
                self._failed("mongo", error)
            except (KafkaError, OSError, TimeoutError, TopicMissing) as error:
                self._failed("kafka", error)
            failures = 1 if self._clock.monotonic() - began_s > _LONGEST_PAUSE_S else failures + 1
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures, 16))
            await self._clock.sleep(pause_s * (0.5 + 0.5 * self._random.random()))

    async def close(self) -> None:
        await self._client.close()

    def _failed(self, system: str, error: Exception) -> None:
        kind = type(error).__name__
        text = f"{kind}: {str(error).removeprefix(f'{kind}: ')}"  # Kafka's library has it in most of its texts
        self.fault = text[:_LONGEST_FAULT]  # a bulk write's has its documents
        self._metrics.failures.labels(system).inc()
        log.warning("the projection failed, and starts again", system=system, error=self.fault)

    async def _project(self) -> None:
        """From where the group is. An offset is committed only when all before it is durable in the model."""
        await self._model.prepare()
        async with TopicReader(self._settings) as topic:
            look_at_s = self._clock.monotonic()
            while True:
                page = await topic.read()
                if page.events:
                    self._metrics.documents.inc(await self._model.apply(page.events))
                    await topic.commit(page)
                    self._metrics.events.inc(len(page.events))
                if self._clock.monotonic() >= look_at_s:
                    self._measure(await topic.lag())
                    look_at_s = self._clock.monotonic() + _LOOK_EVERY_S
                    self.fault = ""

    def _measure(self, lag: Mapping[int, int]) -> None:
        self._metrics.lag_events.clear()  # others may have a partition now
        for partition, records in lag.items():
            self._metrics.lag_events.labels(str(partition)).set(records)


def _client(url: str) -> AsyncMongoClient[Any]:
    """One whose every operation is bounded. Raises UrlRefused."""
    try:
        return AsyncMongoClient(
            url,
            tz_aware=True,
            appname="sagad-projection",
            serverSelectionTimeoutMS=_CONNECT_MS,
            connectTimeoutMS=_CONNECT_MS,
            socketTimeoutMS=_OPERATION_MS,
            retryReads=False,  # it is done here, with pauses
            retryWrites=False,
        )
    except (PyMongoError, ValueError) as error:
        raise UrlRefused(f"pymongo does not take it ({type(error).__name__})") from None
