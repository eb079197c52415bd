"""What the mirror needs of Kafka, and how aiokafka does it: all that is peculiar to that library's clients is here."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from sagad_server.kafka_clients import close, telling_why
from sagad_server.mirror.messages import Message
from sagad_server.mirror.settings import MirrorSettings, cursor_topic
from sagad_server.mirror.topics import REQUEST_TIMEOUT_MS, Topics

TRANSACTION_TIMEOUT_MS = 10_000
"""Short: what a dead relay has left open holds back every reader until then, or until its successor starts."""
_BATCH_BYTES = 512 * 1024
_LAST_RECORDS = 64

Isolation = Literal["read_committed", "read_uncommitted"]
Part = tuple[str, Sequence[Message]]
"""A topic, and what goes there."""


class Producer(Protocol):
    """Has a lane's transactional id. Every method raises KafkaError, and after that it is of no use but to be stopped;
    a call may be given up, with the same effect."""

    async def start(self) -> None:
        """Fences whoever had the lane before, whose open transaction ends with that."""

    async def begin_transaction(self) -> None:
        """Of what is sent from now on."""

    async def send(self, parts: Sequence[Part]) -> list["asyncio.Future[Any]"]:
        """Hands over all of a transaction. Kafka has it when all of these are done; a commit does not tell that one has
        failed. All partitions are in the transaction before one has a record: what ends it ends it in each of them."""

    async def commit_transaction(self) -> None:
        """An error leaves it open whether it was."""

    async def stop(self, *, failed: bool) -> None:
        """Ends no transaction. `failed`: what was handed over does not matter any more."""


class Consumer(Protocol):
    """Reads a lane's part of the cursor topic. Every method raises KafkaError."""

    async def end_offset(self) -> int:
        """Behind the last record. Of committed ones: before the first transaction that is open."""

    async def last_value(self) -> bytes | None:
        """Of the last record; None: there is none."""


class Kafka(Protocol):
    """The cluster with the mirror's topics."""

    async def ready(self) -> None:
        """Returns when the topics are there. Raises WrongTopic, KafkaError, OSError, TimeoutError."""

    def producer(self, lane: int) -> Producer:
        """A new one, not started."""

    def consumer(self, lane: int, isolation: Isolation) -> AbstractAsyncContextManager[Consumer]:
        """Raises KafkaError."""

    async def close(self) -> None:
        """Stops to look after the topics."""


class AioKafka:
    """By aiokafka."""

    def __init__(self, settings: MirrorSettings) -> None:
        self._settings = settings
        self._topics = Topics(settings)

    async def ready(self) -> None:
        await self._topics.ready()

    def producer(self, lane: int) -> Producer:
        return _Producer(self._settings, lane)

    @asynccontextmanager
    async def consumer(self, lane: int, isolation: Isolation) -> AsyncIterator[Consumer]:
        settings = self._settings
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap_servers,
            isolation_level=isolation,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **settings.connection,
        )
        try:
            async with telling_why(settings.bootstrap_servers, settings.connection):
                await consumer.start()
            yield _Consumer(consumer, TopicPartition(cursor_topic(settings.topic), lane))
        finally:
            await close(consumer)

    async def close(self) -> None:
        await self._topics.close()


class _Producer:
    def __init__(self, settings: MirrorSettings, lane: int) -> None:
        self._settings = settings
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap_servers,
            client_id=f"sagad-mirror-{lane}",
            transactional_id=f"{settings.topic}-mirror-{lane}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_batch_size=_BATCH_BYTES,
            **settings.connection,
        )

    async def start(self) -> None:
        async with telling_why(self._settings.bootstrap_servers, self._settings.connection):
            await self._producer.start()

    async def begin_transaction(self) -> None:
        await self._producer.begin_transaction()

    async def send(self, parts: Sequence[Part]) -> list["asyncio.Future[Any]"]:
        batches: list[tuple[int, str, int, Any]] = []
        for topic, messages in parts:
            await self._producer.partitions_for(topic)
            batches += self._batches(topic, messages)
        # The first of each partition before the second of any: nothing has to be waited for until all of them are
        # queued, and the library has the partitions of all that is queued added by one request.
        batches.sort(key=lambda batch: batch[0])
        return [await self._send_batch(batch, topic, partition) for _, topic, partition, batch in batches]

    def _batches(self, topic: str, messages: Sequence[Message]) -> Iterator[tuple[int, str, int, Any]]:
        """Each with its number in its partition."""
        open_: dict[int, tuple[int, str, int, Any]] = {}
        for message in messages:
            last = open_.get(message.partition)
            if last is None or not _append(last[3], message):
                number = 0 if last is None else last[0] + 1
                batch = self._producer.create_batch()
                appended = _append(batch, message)
                assert appended, "an empty batch takes any message"
                open_[message.partition] = number, topic, message.partition, batch
                yield open_[message.partition]

    async def _send_batch(self, batch: Any, topic: str, partition: int) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
        future.add_done_callback(_retrieve)
        return future

    async def commit_transaction(self) -> None:
        await self._producer.commit_transaction()

    async def stop(self, *, failed: bool) -> None:
        if failed:
            # The library never gives up a batch of a transaction, and would wait for it here.
            self._producer._message_accumulator.fail_all(KafkaError("the session is over"))
        await self._producer.stop()


def _append(batch: Any, message: Message) -> bool:
    added = batch.append(timestamp=message.time_ms, key=message.key, value=message.value, headers=message.headers)
    return added is not None


def _retrieve(future: "asyncio.Future[Any]") -> None:
    """Where one has failed, the others' errors are no news."""
    if not future.cancelled():
        future.exception()


class _Consumer:
    def __init__(self, consumer: Any, partition: TopicPartition) -> None:
        self._consumer = consumer
        self._partition = partition

    async def end_offset(self) -> int:
        offset: int = (await self._consumer.end_offsets([self._partition]))[self._partition]
        return offset

    async def last_value(self) -> bytes | None:
        consumer, partition = self._consumer, self._partition
        consumer.assign([partition])
        beginning = (await consumer.beginning_offsets([partition]))[partition]
        end = await self.end_offset()
        records = _LAST_RECORDS
        while True:
            first = max(beginning, end - records)
            consumer.seek(partition, first)
            value = await self._last_until(end)
            if value is not None or first == beginning:
                return value
            records *= 16  # the last ones were markers, or aborted

    async def _last_until(self, end: int) -> bytes | None:
        consumer, partition, value = self._consumer, self._partition, None
        # By the position and not by records: it passes over markers and over what was aborted or compacted away.
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(partition, timeout_ms=500)).get(partition, ()):
                value = record.value
        return value
