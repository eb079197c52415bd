"""The mirror's topic as a member of a group reads it. All that is peculiar to aiokafka's consumer is here."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from sagad.v1.saga_pb2 import SagaEvent
from sagad_server.kafka_clients import close, telling_why
from sagad_server.projection.faults import ForeignRecord
from sagad_server.projection.settings import ProjectionSettings

_PAGE_EVENTS = 500
_WAIT_MS = 500
_REQUEST_TIMEOUT_MS = 5_000
_SESSION_TIMEOUT_MS = 10_000
_METADATA_MAX_AGE_MS = 30_000
_ANSWER_S = 15.0

log = structlog.get_logger(__name__)


class TopicMissing(Exception):  # noqa: N818 - it may come
    """There is no such topic yet."""


@dataclass(frozen=True, slots=True)
class Page:
    """Events, each saga's in order, and the offsets behind them."""

    events: list[SagaEvent]
    offsets: Mapping[TopicPartition, int]


class TopicReader:
    """An asynchronous context manager: a group's member. Every method raises KafkaError, OSError and
    TimeoutError."""

    def __init__(self, settings: ProjectionSettings) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap_servers,
            group_id=settings.group_id,
            group_instance_id=settings.member,
            client_id="sagad-projection",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            session_timeout_ms=_SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=_SESSION_TIMEOUT_MS // 4,
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            **settings.connection,
        )

    async def __aenter__(self) -> Self:
        """Raises TopicMissing."""
        try:
            async with telling_why(self._settings.bootstrap_servers, self._settings.connection):
                await self._consumer.start()
            await self._subscribe()
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def _subscribe(self) -> None:
        """To a topic that exists: else it would be found only when metadata are asked for again."""
        if self._topic not in await self._consumer.topics():
            raise TopicMissing(f"there is no topic {self._topic} yet: the mirror makes it")
        self._consumer.subscribe([self._topic])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await close(self._consumer)

    async def read(self) -> Page:
        """What comes next, after half a second at the latest. Raises ForeignRecord."""
        found = await self._consumer.getmany(timeout_ms=_WAIT_MS, max_records=_PAGE_EVENTS)
        events = [_event(record) for records in found.values() for record in records]
        return Page(events, {partition: records[-1].offset + 1 for partition, records in found.items() if records})

    async def commit(self, page: Page) -> None:
        """The page is done: no member of the group gets it again."""
        try:
            async with asyncio.timeout(_ANSWER_S):  # the library would try for ever
                await self._consumer.commit(dict(page.offsets))
        except (CommitFailedError, IllegalStateError) as error:
            # Another member has this part of the topic now, and does it again, which changes nothing.
            log.warning("offsets were not committed", error=str(error))

    async def lag(self) -> dict[int, int]:
        """Records that are committed in Kafka and not read yet, by partition of this member. Fails where Kafka is away,
        which reading does not tell."""
        async with asyncio.timeout(_ANSWER_S):
            numbers = self._consumer.partitions_for_topic(self._topic) or ()
            ends = await self._consumer.end_offsets([TopicPartition(self._topic, number) for number in numbers])
            return {
                partition.partition: max(0, ends[partition] - await self._consumer.position(partition))
                for partition in self._consumer.assignment() & ends.keys()
            }


def _event(record: Any) -> SagaEvent:
    headers = dict(record.headers)
    try:
        if headers.get("content-type") == b"application/json":
            event = json_format.Parse(record.value, SagaEvent(), ignore_unknown_fields=True)
        else:
            event = SagaEvent.FromString(record.value)
        uid, _, revision = headers.get("ce_id", b"").decode().partition("/")
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, TypeError) as error:
        raise ForeignRecord(record, repr(error)) from error
    if not uid or revision != str(event.revision):
        raise ForeignRecord(record, f"its ce_id is {uid}/{revision}, and its revision {event.revision}")
    event.uid = uid  # which a mirror of an earlier version has in the header alone
    return event
