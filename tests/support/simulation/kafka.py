"""A Kafka broker that keeps transactions as the real one does, and a client of it as the mirror uses one.

Time and the way between them are given from outside. tests/integration/mirror/test_sessions.py holds it to what the
real one does.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiokafka.errors import ConcurrentTransactions, IllegalOperation, InvalidTxnState, ProducerFenced

from sagad_server.mirror.kafka import TRANSACTION_TIMEOUT_MS, Isolation, Part
from sagad_server.mirror.messages import Message
from sagad_server.mirror.settings import cursor_topic

Partition = tuple[str, int]
CallLater = Callable[..., object]
Way = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]
"""How a request comes to the broker, and its answer back. It repeats what got lost, as aiokafka does."""


class State(Enum):
    """What has become of a record."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(slots=True)
class Record:
    """In a partition's log."""

    transactional_id: str
    message: Message
    state: State = State.OPEN


@dataclass(slots=True)
class _Coordinator:
    """What the broker knows of a transactional id."""

    epoch: int = 0
    transaction: int = 0
    """Counts them."""
    is_open: bool = False
    is_ending: bool = False
    """Its end is decided, and not marked in all partitions yet."""
    last_end: State | None = None
    partitions: dict[Partition, None] = field(default_factory=dict)
    sequence: int = 0
    """Of the last append of this epoch: a repeat is answered and changes nothing."""


class Broker:
    """Every request is done at once. `marks_after_s` and `loses_end` are faults that may befall the end of a
    transaction: its markers are late, or are never written though it counts as ended."""

    def __init__(self, call_later: CallLater) -> None:
        self.logs: dict[Partition, list[Record]] = defaultdict(list)
        self.marks_after_s: Callable[[], float] = lambda: 0.0
        self.loses_end: Callable[[], bool] = lambda: False
        self.on_append: Callable[[str, Sequence[Message]], None] = lambda topic, messages: None
        self.on_init: Callable[[str], None] = lambda transactional_id: None
        self._call_later = call_later
        self._coordinators: dict[str, _Coordinator] = defaultdict(_Coordinator)

    # -- what producers ask

    def init(self, transactional_id: str) -> int:
        """Aborts what an earlier producer has open, and fences it; the new epoch."""
        own = self._settled(transactional_id)
        if own.is_open:
            own.epoch += 1
            self._end(transactional_id, own, State.ABORTED)
            if own.is_ending:
                raise ConcurrentTransactions("the transaction before is being ended")
        own.epoch += 1
        own.sequence, own.last_end = 0, None
        self.on_init(transactional_id)
        return own.epoch

    def append(
        self,
        transactional_id: str,
        epoch: int,
        sequence: int,
        partitions: Sequence[Partition],
        partition: Partition,
        messages: Sequence[Message],
    ) -> None:
        """`partitions`: all that belong to the transaction as far as it is sent."""
        own = self._settled(transactional_id, epoch)
        if sequence <= own.sequence:
            return
        own.sequence = sequence
        if not own.is_open:
            own.is_open = True
            own.transaction += 1
            self._call_later(TRANSACTION_TIMEOUT_MS / 1000, self._expire, transactional_id, own.transaction)
        own.partitions |= dict.fromkeys(partitions)
        self.logs[partition] += [Record(transactional_id, message) for message in messages]
        self.on_append(partition[0], messages)

    def commit(self, transactional_id: str, epoch: int) -> None:
        own = self._fenced(transactional_id, epoch)
        if own.is_open:
            self._end(transactional_id, own, State.COMMITTED)
        elif own.last_end is not State.COMMITTED:
            raise InvalidTxnState("there is no transaction to commit")

    def _fenced(self, transactional_id: str, epoch: int) -> _Coordinator:
        own = self._coordinators[transactional_id]
        if epoch != own.epoch:
            raise ProducerFenced(f"epoch {epoch} is over, {own.epoch} has begun")
        return own

    def _settled(self, transactional_id: str, epoch: int | None = None) -> _Coordinator:
        own = self._coordinators[transactional_id] if epoch is None else self._fenced(transactional_id, epoch)
        if own.is_ending:
            raise ConcurrentTransactions("the transaction before is being ended")
        return own

    def _expire(self, transactional_id: str, transaction: int) -> None:
        own = self._coordinators[transactional_id]
        if own.is_open and own.transaction == transaction:
            own.epoch += 1
            self._end(transactional_id, own, State.ABORTED)

    def _end(self, transactional_id: str, own: _Coordinator, end: State) -> None:
        own.is_open, own.last_end = False, end
        partitions, own.partitions = list(own.partitions), {}
        if end is State.COMMITTED and self.loses_end():
            return
        delay_s = self.marks_after_s()
        own.is_ending = delay_s > 0
        if own.is_ending:
            self._call_later(delay_s, self._mark, transactional_id, partitions, end)
        else:
            self._mark(transactional_id, partitions, end)

    def _mark(self, transactional_id: str, partitions: list[Partition], end: State) -> None:
        """Ends all that this producer has open in these partitions, also what an end that was lost has left there."""
        self._coordinators[transactional_id].is_ending = False
        for partition in partitions:
            for record in reversed(self.logs[partition]):
                if record.transactional_id == transactional_id:
                    if record.state is not State.OPEN:
                        break
                    record.state = end

    # -- what consumers ask

    def end_offset(self, partition: Partition, isolation: Isolation) -> int:
        log = self.logs[partition]
        if isolation == "read_uncommitted":
            return len(log)
        return next((offset for offset, record in enumerate(log) if record.state is State.OPEN), len(log))

    def read(self, partition: Partition, isolation: Isolation) -> list[Message]:
        """All that such a consumer sees."""
        records = self.logs[partition][: self.end_offset(partition, isolation)]
        hidden = State.ABORTED if isolation == "read_committed" else None
        return [record.message for record in records if record.state is not hidden]

    def end_lost(self) -> None:
        """Ends what is left of ends that were lost, as the next transaction of each producer would."""
        for log in self.logs.values():
            for record in log:
                own = self._coordinators[record.transactional_id]
                if record.state is State.OPEN and not (own.is_open or own.is_ending):
                    record.state = State.COMMITTED


class SimulatedKafka:
    """A `Kafka` of one process."""

    def __init__(self, broker: Broker, topic: str, way: Way) -> None:
        self._broker = broker
        self._topic = topic
        self._way = way

    async def ready(self) -> None:
        await self._way(lambda: None)

    def producer(self, lane: int) -> "SimulatedProducer":
        return SimulatedProducer(self._broker, f"{self._topic}-mirror-{lane}", self._way)

    @asynccontextmanager
    async def consumer(self, lane: int, isolation: Isolation) -> AsyncIterator["SimulatedConsumer"]:
        await self._way(lambda: None)
        yield SimulatedConsumer(self._broker, (cursor_topic(self._topic), lane), isolation, self._way)

    async def close(self) -> None: ...


class SimulatedProducer:
    """A `Producer`."""

    def __init__(self, broker: Broker, transactional_id: str, way: Way) -> None:
        self._broker = broker
        self._id = transactional_id
        self._way = way
        self._epoch = 0
        self._sequence = 0
        self._in_transaction = False
        self._sent: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        self._epoch = await self._way(lambda: self._broker.init(self._id))

    async def begin_transaction(self) -> None:
        if self._in_transaction:
            raise IllegalOperation("a transaction is under way")
        self._in_transaction = True

    async def send(self, parts: Sequence[Part]) -> list["asyncio.Future[Any]"]:
        batches: dict[Partition, list[Message]] = {}
        for topic, messages in parts:
            for message in messages:
                batches.setdefault((topic, message.partition), []).append(message)
        sent: list[asyncio.Future[Any]] = [self._append(list(batches), *batch) for batch in batches.items()]
        return sent

    def _append(
        self, partitions: list[Partition], partition: Partition, messages: list[Message]
    ) -> "asyncio.Task[Any]":
        """One after the other: none overtakes another on its way."""
        self._sequence += 1
        before = self._sent[-1] if self._sent else None
        sequence, epoch = self._sequence, self._epoch

        async def append() -> None:
            if before is not None:
                await before
            await self._way(lambda: self._broker.append(self._id, epoch, sequence, partitions, partition, messages))

        task = asyncio.get_running_loop().create_task(append())
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._sent.append(task)
        return task

    async def commit_transaction(self) -> None:
        await asyncio.gather(*self._sent)
        await self._way(lambda: self._broker.commit(self._id, self._epoch))
        self._sent, self._in_transaction = [], False

    async def stop(self, *, failed: bool) -> None:
        for task in self._sent:
            task.cancel()


class SimulatedConsumer:
    """A `Consumer`."""

    def __init__(self, broker: Broker, partition: Partition, isolation: Isolation, way: Way) -> None:
        self._broker = broker
        self._partition = partition
        self._isolation = isolation
        self._way = way

    async def end_offset(self) -> int:
        offset: int = await self._way(lambda: self._broker.end_offset(self._partition, self._isolation))
        return offset

    async def last_value(self) -> bytes | None:
        seen: list[Message] = await self._way(lambda: self._broker.read(self._partition, self._isolation))
        return seen[-1].value if seen else None
