"""A lane's transactions in Kafka. All that is peculiar to aiokafka's producer is here."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from sagad_server.mirror.cursor import Cursor, Diverged, decode
from sagad_server.mirror.messages import Message
from sagad_server.mirror.settings import MirrorSettings, cursor_topic
from sagad_server.storage.mirror import LANES

REQUEST_TIMEOUT_MS = 5_000
TRANSACTION_TIMEOUT_MS = 10_000
"""Short: what a dead relay has left open holds back every reader until then, or until its successor starts."""
_OPEN_S = 30.0
_WRITE_S = 20.0
_CLOSE_S = 15.0
_BATCH_BYTES = 512 * 1024
_LAST_RECORDS = 64
_END_S = 2.0
_LOOK_AGAIN_S = 0.1

log = structlog.get_logger(__name__)


class Session:
    """One producer with the lane's transactional id. After any failure it is of no use: close it, and open another."""

    def __init__(self, settings: MirrorSettings, lane: int) -> None:
        self._settings = settings
        self._lane = lane
        self._failed = True
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap_servers,
            client_id=f"sagad-mirror-{lane}",
            transactional_id=f"{settings.topic}-mirror-{lane}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_batch_size=_BATCH_BYTES,
            **settings.connection,
        )

    async def open(self) -> Cursor | None:
        """Fences whoever had the lane before, whose open transaction ends with that; then nobody else can move the
        place, and it is read: None if Kafka has none. Raises KafkaError, OSError, TimeoutError, Diverged."""
        async with asyncio.timeout(_OPEN_S):
            await self._producer.start()
            value = await _last_value(self._settings, self._lane)
        self._failed = False
        return None if value is None else decode(value)

    async def write(self, messages: Sequence[Message], cursor: Cursor) -> None:
        """Events and place, both or neither. A failure leaves it open whether they were."""
        self._failed = True
        async with asyncio.timeout(_WRITE_S):
            await self._producer.begin_transaction()
            sent = await self._send(messages, cursor)
            # The commit would not tell that one of them failed.
            await asyncio.gather(*sent)
            await self._producer.commit_transaction()
        self._failed = False

    async def _send(self, messages: Sequence[Message], cursor: Cursor) -> list[asyncio.Future[Any]]:
        topic = self._settings.topic
        sent: list[asyncio.Future[Any]] = []
        batches: dict[int, Any] = {}
        for message in messages:
            batch = batches.get(message.partition)
            if batch is None or not _append(batch, message):
                if batch is not None:
                    sent.append(await self._send_batch(batch, topic, message.partition))
                batch = batches[message.partition] = self._producer.create_batch()
                appended = _append(batch, message)
                assert appended, "an empty batch takes any message"
        for partition, batch in batches.items():
            sent.append(await self._send_batch(batch, topic, partition))
        place = self._producer.create_batch()
        place.append(timestamp=None, key=b"%d" % self._lane, value=cursor.encode())
        sent.append(await self._send_batch(place, cursor_topic(topic), self._lane))
        return sent

    async def _send_batch(self, batch: Any, topic: str, partition: int) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
        future.add_done_callback(_retrieve)
        return future

    async def close(self) -> None:
        """Never raises: whatever is left behind, the next session fences it."""
        if self._failed:
            # The library never gives up a batch of a transaction, and would wait for it here.
            self._producer._message_accumulator.fail_all(KafkaError("the session is over"))
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._producer.stop()
        except Exception as error:  # noqa: BLE001 - it is thrown away
            log.info("a producer did not close well", lane=self._lane, error=repr(error))


def _append(batch: Any, message: Message) -> bool:
    added = batch.append(timestamp=message.time_ms, key=message.key, value=message.value, headers=message.headers)
    return added is not None


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Where one has failed, the others' errors are no news."""
    if not future.cancelled():
        future.exception()


async def _last_value(settings: MirrorSettings, lane: int) -> bytes | None:
    """The last record of the lane's own partition that counts. No other producer writes there, so that nothing of
    somebody else's can hold it back, and nothing of ours is open now.

    A broker that dies between its decision on a transaction and the markers that end it may, once it is back, take the
    transaction for ended without them. The end of our next transaction is then the end of that one too, as one: so the
    lane goes on behind it. Raises Diverged where our next one might not reach all that it wrote.
    """
    partition = TopicPartition(cursor_topic(settings.topic), lane)
    async with _consumer(settings, "read_committed") as committed, _consumer(settings, "read_uncommitted") as written:
        if await _all_has_ended(committed, written, partition):
            return await _last(committed, partition)
        if settings.partitions > LANES:
            raise Diverged("Kafka has lost the end of a transaction: the last events of this lane may be seen or not")
        log.warning("Kafka has lost the end of a transaction: it ends with the next one", lane=lane)
        return await _last(written, partition)


@asynccontextmanager
async def _consumer(settings: MirrorSettings, isolation_level: str) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        isolation_level=isolation_level,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        **settings.connection,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def _all_has_ended(committed: Any, written: Any, partition: TopicPartition) -> bool:
    """Whether no transaction is open in the partition, after some time at the latest."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _END_S
    while (await committed.end_offsets([partition]))[partition] < (await written.end_offsets([partition]))[partition]:
        if loop.time() > give_up_at:
            return False
        await asyncio.sleep(_LOOK_AGAIN_S)
    return True


async def _last(consumer: Any, partition: TopicPartition) -> bytes | None:
    consumer.assign([partition])
    beginning = (await consumer.beginning_offsets([partition]))[partition]
    end = (await consumer.end_offsets([partition]))[partition]
    records = _LAST_RECORDS
    while True:
        first = max(beginning, end - records)
        consumer.seek(partition, first)
        value = await _last_until(consumer, partition, end)
        if value is not None or first == beginning:
            return value
        records *= 16  # the last ones were markers, or aborted


async def _last_until(consumer: Any, partition: TopicPartition, end: int) -> bytes | None:
    value: bytes | None = None
    # By the position and not by records: it passes over markers and over what was aborted or compacted away.
    while await consumer.position(partition) < end:
        for record in (await consumer.getmany(partition, timeout_ms=500)).get(partition, ()):
            value = record.value
    return value
