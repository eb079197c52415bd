"""A lane's transactions in Kafka: in which order what is asked of it, so that nothing is lost or repeated."""

import asyncio
from collections.abc import Sequence

import structlog

from sagad_server.engine.ports import Clock
from sagad_server.mirror.cursor import Cursor, Diverged, decode
from sagad_server.mirror.kafka import Consumer, Kafka
from sagad_server.mirror.messages import Message
from sagad_server.mirror.settings import MirrorSettings, cursor_topic
from sagad_server.storage.mirror import LANES

_OPEN_S = 30.0
_WRITE_S = 20.0
_CLOSE_S = 15.0
_END_S = 2.0
_LOOK_AGAIN_S = 0.1

log = structlog.get_logger(__name__)


class Session:
    """One producer with the lane's transactional id. After any failure it is of no use: close it, and open another."""

    def __init__(self, settings: MirrorSettings, lane: int, kafka: Kafka, clock: Clock) -> None:
        self._settings = settings
        self._lane = lane
        self._kafka = kafka
        self._clock = clock
        self._failed = True
        self._producer = kafka.producer(lane)

    async def open(self) -> Cursor | None:
        """Fences whoever had the lane before, whose open transaction ends with that; then nobody else can move the
        place, and it is read: None if Kafka has none. Raises KafkaError, OSError, TimeoutError, Diverged."""
        async with asyncio.timeout(_OPEN_S):
            await self._producer.start()
            value = await self._last_value()
        self._failed = False
        return None if value is None else decode(value)

    async def write(self, messages: Sequence[Message], cursor: Cursor) -> None:
        """Events and place, both or neither. A failure leaves it open whether they were."""
        self._failed = True
        topic = self._settings.topic
        place = Message(self._lane, b"%d" % self._lane, cursor.encode(), [], None)
        async with asyncio.timeout(_WRITE_S):
            await self._producer.begin_transaction()
            await asyncio.gather(*await self._producer.send([(topic, messages), (cursor_topic(topic), [place])]))
            await self._producer.commit_transaction()
        self._failed = False

    async def close(self) -> None:
        """Never raises: whatever is left behind, the next session fences it."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._producer.stop(failed=self._failed)
        except Exception as error:  # noqa: BLE001 - it is thrown away
            log.info("a producer did not close well", lane=self._lane, error=repr(error))

    async def _last_value(self) -> bytes | None:
        """The last record of the lane's own partition that counts. No other producer writes there, so that nothing of
        somebody else's can hold it back, and nothing of ours is open now.

        A broker that dies between its decision on a transaction and the markers that end it may, once it is back, take
        the transaction for ended without them. The end of our next transaction is then the end of that one too, as one:
        so the lane goes on behind it. Raises Diverged where our next one might not reach all that it wrote.
        """
        consumer, lane = self._kafka.consumer, self._lane
        async with consumer(lane, "read_committed") as committed, consumer(lane, "read_uncommitted") as written:
            if await self._all_has_ended(committed, written):
                return await committed.last_value()
            if self._settings.partitions > LANES:
                raise Diverged("Kafka has lost the end of a transaction: this lane's last events may be seen or not")
            log.warning("Kafka has lost the end of a transaction: it ends with the next one", lane=lane)
            return await written.last_value()

    async def _all_has_ended(self, committed: Consumer, written: Consumer) -> bool:
        """Whether no transaction is open in the lane's partition, after some time at the latest."""
        give_up_at = self._clock.monotonic() + _END_S
        while await committed.end_offset() < await written.end_offset():
            if self._clock.monotonic() > give_up_at:
                return False
            await self._clock.sleep(_LOOK_AGAIN_S)
        return True
