"""The mirror's topics: made if they are not there, and else looked at."""

import asyncio
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from sagad_server.kafka_clients import telling_why
from sagad_server.mirror.settings import MirrorSettings, cursor_topic
from sagad_server.storage.mirror import LANES

REQUEST_TIMEOUT_MS = 5_000
_PREPARE_S = 30.0
_LOOKS = 50
_LOOK_AGAIN_S = 0.2
_MOST_REPLICAS = 3

log = structlog.get_logger(__name__)


class WrongTopic(Exception):  # noqa: N818 - a verdict on the topic
    """A topic is missing and may not be made, or has another number of partitions."""


class Topics:
    """Prepared once for all lanes; after a failure again."""

    def __init__(self, settings: MirrorSettings) -> None:
        self._settings = settings
        self._preparing: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Returns when they are there. Raises WrongTopic, KafkaError, OSError, TimeoutError."""
        task = self._preparing
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._preparing = asyncio.get_running_loop().create_task(_prepare(self._settings))
        await asyncio.shield(task)

    async def close(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)


async def _prepare(settings: MirrorSettings) -> None:
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.bootstrap_servers,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        client_id="sagad-mirror",
        **settings.connection,
    )
    try:
        async with asyncio.timeout(_PREPARE_S):
            async with telling_why(settings.bootstrap_servers, settings.connection):
                await admin.start()
            wanted = {settings.topic: settings.partitions, cursor_topic(settings.topic): LANES}
            missing = {name for name, has in (await _partitions(admin, wanted)).items() if not has}
            if missing:
                await _make(admin, settings, missing)
            await _check(admin, wanted)
    finally:
        await admin.close()


async def _partitions(admin: Any, topics: dict[str, int]) -> dict[str, int]:
    """How many each has; 0: there is no such topic."""
    found = dict.fromkeys(topics, 0)
    for topic in await admin.describe_topics(list(topics)):
        error = for_code(topic["error_code"])
        if topic["error_code"] and error is not UnknownTopicOrPartitionError and not error.retriable:
            raise error(topic["topic"])
        found[topic["topic"]] = len(topic["partitions"])
    return found


async def _make(admin: Any, settings: MirrorSettings, missing: set[str]) -> None:
    if not settings.makes_topics:
        raise WrongTopic(f"there is no topic {' and no topic '.join(sorted(missing))}, and mirror.make_topics is false")
    brokers = len((await admin.describe_cluster())["brokers"])
    replicas = settings.replication_factor or min(_MOST_REPLICAS, brokers)
    new = [
        NewTopic(
            settings.topic,
            settings.partitions,
            replicas,
            topic_configs={"cleanup.policy": "delete", "retention.ms": str(round(settings.retention_s * 1000))},
        ),
        NewTopic(
            cursor_topic(settings.topic),
            LANES,
            replicas,
            topic_configs={"cleanup.policy": "compact", "segment.bytes": str(16 * 1024 * 1024)},
        ),
    ]
    response = await admin.create_topics([topic for topic in new if topic.name in missing])
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another process was faster
            raise error(f"{name}: {message}")
    log.info("topics made", topics=sorted(missing), replicas=replicas)


async def _check(admin: Any, wanted: dict[str, int]) -> None:
    """What has just been made takes a moment to show."""
    for _ in range(_LOOKS):
        found = await _partitions(admin, wanted)
        if all(found.values()):
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    for name, has in found.items():
        if has != wanted[name]:
            raise WrongTopic(
                f"topic {name} has {has} partitions, and must have {wanted[name]}: the order of events rests on "
                f"it; set mirror.partitions, or give mirror.topic another name"
            )
