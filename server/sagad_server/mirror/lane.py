"""One lane of the journal on its way to Kafka."""

import asyncio

import structlog
from aiokafka.errors import ProducerFenced

from sagad_server.engine.ports import Clock, Random
from sagad_server.mirror.cursor import Cursor, Diverged, check, where_to_go_on
from sagad_server.mirror.kafka import Kafka
from sagad_server.mirror.messages import Encoder, Message, Traceparents
from sagad_server.mirror.metrics import MirrorMetrics
from sagad_server.mirror.reader import Reader
from sagad_server.mirror.session import Session
from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.mirror import Lane, LanePage, MirrorStore, Place

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_LAST_TRANSACTION_S = 5.0
_AT_A_TIME = 64

log = structlog.get_logger(__name__)


class LaneRelay:
    """Relays one lane until it is stopped, is fenced by another process, or has diverged."""

    def __init__(
        self,
        settings: MirrorSettings,
        lane: Lane,
        tables: MirrorStore,
        kafka: Kafka,
        reader: Reader,
        metrics: MirrorMetrics,
        clock: Clock,
        random: Random,
    ) -> None:
        self.lane = lane
        """As it stood in the database when this one was started; its place and owner may be old."""
        self.relayed: Place | None = None
        """Up to here Kafka has the lane, in this start of it; None: not known yet."""
        self.fault = ""
        """What its last session failed with; empty again once it has relayed, or has nothing to relay."""
        self._settings = settings
        self._tables = tables
        self._kafka = kafka
        self._reader = reader
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._encoder = Encoder(settings)
        self._traceparents = Traceparents()
        self._failures = 0
        self._between = asyncio.Lock()
        """Held while a transaction is open."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def done(self) -> bool:
        return self._task.done()

    async def stop(self) -> None:
        """Ends between two transactions, if that takes not too long: one that is left open would hold back readers."""
        try:
            async with asyncio.timeout(_LAST_TRANSACTION_S), self._between:
                self._task.cancel()
        except TimeoutError:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """A new session after each failure, with a pause that grows."""
        while True:
            try:
                await self._relay()
            except Diverged as error:
                await self._stand_still(error)
                return
            except ProducerFenced:
                # By its successor, if it was not too slow. The next look at the lanes decides.
                self._count("fenced")
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, only a new session helps
                self._count(type(error).__name__, error)
            await self._clock.sleep(self._pause_s())

    async def _relay(self) -> None:
        """A session, until it fails. From its start nobody else can move the lane's place."""
        await self._kafka.ready()
        session = Session(self._settings, self.lane.lane, self._kafka, self._clock)
        try:
            cursor = await session.open()
            self.fault = ""
            mark = where_to_go_on(await self._row(), cursor)
            more = True
            while True:
                page = await self._reader.page(self.lane.lane, mark, at_once=more)
                check(mark, page)
                mark, more = page.events[-1].mark, page.more
                async with self._between:
                    await self._write(session, page, Cursor(self.lane.start_id, mark))
        finally:
            await session.close()

    async def _row(self) -> Lane:
        rows = await self._tables.lanes(self.lane.topic)
        row = next((row for row in rows if row.lane == self.lane.lane), None)
        if row is None or row.start_id != self.lane.start_id:
            raise ProducerFenced("an operator has moved the lane meanwhile")
        return row

    async def _write(self, session: Session, page: LanePage, cursor: Cursor) -> None:
        await self._learn_traceparents(page)
        messages = await self._encode(page)
        await session.write(messages, cursor)
        self.relayed = cursor.mark.place
        self._failures = 0
        self.fault = ""
        self._metrics.events.inc(len(messages))
        self._metrics.transactions.inc()

    async def _encode(self, page: LanePage) -> list[Message]:
        """In small parts: sagas are driven on the same loop."""
        messages: list[Message] = []
        for event in page.events:
            traceparent = self._traceparents.get((event.row.namespace, event.row.saga_id))
            messages.append(self._encoder.encode(event, traceparent))
            if len(messages) % _AT_A_TIME == 0:
                await self._clock.sleep(0)
        return messages

    async def _learn_traceparents(self, page: LanePage) -> None:
        unknown = list(self._traceparents.unknown(page.events))
        others = await self._tables.first_payloads(unknown) if unknown else {}
        self._traceparents.learn_all(page.events, others)

    async def _stand_still(self, error: Diverged) -> None:
        """Sagas go on; the lane does when an operator has said from where. Not if another process has it by now: then
        this one may only be far behind."""
        self._count("diverged", error)
        while True:
            try:
                if await self._tables.stop(self.lane, str(error)):
                    log.error("MIRROR_DIVERGED", topic=self.lane.topic, lane=self.lane.lane, error=str(error))
            except Exception as away:  # noqa: BLE001 - it must be said, and the next look would only start it again
                self._count(type(away).__name__, away)
                await self._clock.sleep(self._pause_s())
            else:
                return

    def _count(self, reason: str, error: Exception | None = None) -> None:
        self._failures += 1
        self.fault = f"{reason}: {str(error).removeprefix(f'{reason}: ')}" if error else reason
        self._metrics.aborts.labels(reason).inc()
        log.warning("a lane of the mirror starts anew", lane=self.lane.lane, reason=reason, error=str(error or ""))

    def _pause_s(self) -> float:
        longest: float = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        return longest * (0.5 + 0.5 * self._random.random())
