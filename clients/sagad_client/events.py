"""Events of all sagas, read from the topic that the mirror fills. Needs the extra `kafka`."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Collection, Set
from time import monotonic
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaConnectionError, KafkaError, KafkaTimeoutError
from google.protobuf import json_format

from sagad.v1.saga_pb2 import SagaEvent
from sagad_client.kafka_faults import connection_faults

_MOST_SAGAS = 100_000
"""Whose revisions are remembered for a partition: what an event repeats is seldom older."""
_PAGE = 500
_LONGEST_WAIT_S = 1.0

log = logging.getLogger(__name__)


class EventGap(Exception):  # noqa: N818 - a fact about the topic
    """Events of a saga are missing in the topic, such as by its retention, or because somebody wrote into it."""

    def __init__(self, event: SagaEvent, last_revision: int) -> None:
        super().__init__(
            f"saga {event.namespace}/{event.saga_id}: revision {event.revision} came after {last_revision}; "
            f"ListSagaEvents has what is missing between them, unless it is purged"
        )
        self.event = event
        """The one that came too early. Iterating on goes on behind it."""
        self.last_revision = last_revision


class SagaEvents:
    """An asynchronous context manager and iterator of `SagaEvent`: each saga's in the order of its revisions, no matter
    how often a consumer dies.

    An event counts as done when the next one is asked for, or by `commit`. Consumers of a group share the topic; one
    that starts, or takes over, goes on behind what was committed as done, so that after a crash the events of the last
    `commit_interval_s` come again. What this consumer has had already is dropped, until the parts of the topic are
    shared out anew: what was not committed then comes again. Iterating raises EventGap, where events are missing
    between two of a saga that this consumer has had since, and aiokafka's KafkaError; KafkaTimeoutError where Kafka
    does not answer to a commit within `request_timeout_s`, or not share out the parts within this and
    `session_timeout_s` together, after which iterating on loses nothing, and commits or waits again.

    With the mechanism PLAIN, aiokafka's debug messages hold the password: keep its logger above them, by
    `logging.getLogger("aiokafka.conn").setLevel(logging.INFO)`.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        group_id: str,
        topic: str = "saga-events",
        from_beginning: bool = True,
        idle_timeout_s: float | None = None,
        request_timeout_s: float = 10.0,
        session_timeout_s: float = 10.0,
        commit_interval_s: float = 1.0,
        **connection: Any,
    ) -> None:
        """
        Args:
            bootstrap_servers: of Kafka, HOST:PORT, more after commas.
            group_id: of the consumers that share the topic.
            topic: that the mirror fills.
            from_beginning: where a group begins that has not committed yet; else at the end.
            idle_timeout_s: the iteration ends after so long without an event, for whatever reason; None: it never does.
            request_timeout_s: of a request to Kafka.
            session_timeout_s: a consumer that is silent for so long has lost its part of the topic.
            commit_interval_s: time between two commits.
            connection: more for aiokafka's consumer: `security_protocol`, `ssl_context`, `sasl_mechanism` and the like.
        """
        self._kafka = bootstrap_servers, connection
        self._topic = topic
        self._coordinator = f"is the coordinator of group {group_id} there, which leads a part of __consumer_offsets?"
        self._idle_timeout_s = idle_timeout_s
        self._request_timeout_s = request_timeout_s
        self._last_commit_s = min(request_timeout_s, session_timeout_s / 2)  # longer, and it loses its place
        self._share_out_s = session_timeout_s + request_timeout_s
        # Each broker may be silent for one, and the topic may be sought for another.
        self._start_s = (bootstrap_servers.count(",") + 2) * request_timeout_s + self._share_out_s
        self._commit_interval_s = commit_interval_s
        self._commit_at_s = monotonic() + commit_interval_s
        self._read: deque[Any] = deque()
        self._fetching: asyncio.Task[None] | None = None
        self._given: tuple[TopicPartition, int] | None = None
        self._done: dict[TopicPartition, int] = {}
        """The offset behind what is done, where it is not committed yet."""
        self._revisions: dict[TopicPartition, OrderedDict[tuple[str, str, str], int]] = {}
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            group_id=group_id,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest" if from_beginning else "latest",
            request_timeout_ms=round(request_timeout_s * 1000),
            session_timeout_ms=round(session_timeout_s * 1000),
            heartbeat_interval_ms=round(session_timeout_s * 1000 / 4),
            **connection,
        )

    async def __aenter__(self) -> Self:
        """Raises KafkaError; KafkaConnectionError where no broker can be reached, with what each has against it;
        KafkaTimeoutError where one can, and the group's coordinator not: after `session_timeout_s` and at most
        five times `request_timeout_s`, once more for each further broker."""
        self._consumer.subscribe([self._topic], listener=_Rebalance(self))
        try:
            async with asyncio.timeout(self._start_s):  # the library would wait for ever for its first part
                await self._consumer.start()
        except TimeoutError as error:
            await self._close()
            raise KafkaTimeoutError(
                f"Kafka gave this reader no part of topic {self._topic} within {self._start_s:g} s: {self._coordinator}"
            ) from error
        except KafkaConnectionError as error:
            await self._close()
            faults = await connection_faults(*self._kafka, self._request_timeout_s)
            if not faults:
                raise
            raise KafkaConnectionError("; ".join(faults)) from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is done is committed; the event given last counts only if `commit` was called. Where Kafka does not
        answer this ends all the same, after three times `request_timeout_s` at most."""
        try:
            await self._commit(self._request_timeout_s)
        except KafkaTimeoutError as error:
            log.warning("%s", error)
        finally:
            await self._close()

    async def _close(self) -> None:
        # As a task: where a connection has broken the library lets a cancellation of its own out, which is not ours.
        stopping = asyncio.create_task(self._stop())
        await asyncio.wait({stopping}, timeout=2 * self._request_timeout_s)
        if not stopping.cancel() and not stopping.cancelled() and (failed := stopping.exception()) is not None:
            log.info("a consumer did not close well: %r", failed)

    async def _stop(self) -> None:
        try:
            if self._fetching is not None:
                self._fetching.cancel()
                await asyncio.gather(self._fetching, return_exceptions=True)  # nobody reads on
            await self._consumer.stop()
        finally:
            # Which that leaves open then. Closed twice, it stays closed.
            await self._consumer._client.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SagaEvent:
        self._finish()
        while True:
            record = await self._record()
            partition = TopicPartition(record.topic, record.partition)
            event = _event(record)
            last = self._remember(partition, event)
            if last is not None and event.revision <= last:
                self._done[partition] = record.offset + 1
                continue
            self._given = partition, record.offset + 1
            if last is not None and event.revision > last + 1:
                raise EventGap(event, last)
            return event

    async def commit(self) -> None:
        """All events given so far are done. Raises KafkaError; KafkaTimeoutError after `request_timeout_s`."""
        self._finish()
        await self._commit(self._request_timeout_s)

    def _finish(self) -> None:
        if self._given is not None:
            partition, offset = self._given
            self._done[partition] = offset
            self._given = None

    async def _commit(self, timeout_s: float) -> None:
        done = dict(self._done)
        self._commit_at_s = monotonic() + self._commit_interval_s
        if not done:
            return
        try:
            async with asyncio.timeout(timeout_s):  # the library would try for ever
                await self._consumer.commit(done)
        except TimeoutError as error:
            raise KafkaTimeoutError(
                f"Kafka did not answer to a commit within {timeout_s:g} s: is it there, and its group's "
                f"coordinator? What is done is committed with the next commit; to whoever reads before, it comes again"
            ) from error
        except (CommitFailedError, IllegalStateError) as error:
            # Another consumer has this part now: for it, these events are not done.
            log.warning("events were not committed, and come again to another consumer: %s", error)
        for partition, offset in done.items():
            if self._done.get(partition) == offset:
                del self._done[partition]

    async def _record(self) -> Any:
        idle_since_s = answer_s = monotonic()
        while not self._read:
            now_s = monotonic()
            left_s = _LONGEST_WAIT_S
            if self._idle_timeout_s is not None:
                left_s = min(left_s, idle_since_s + self._idle_timeout_s - now_s)
                if left_s <= 0:
                    await self._commit(self._request_timeout_s)
                    raise StopAsyncIteration
            await self._commit_if_due(now_s)
            wait_s = min(left_s, max(0.0, self._commit_at_s - now_s)) if self._done else left_s
            if await self._fetched(wait_s):
                answer_s = monotonic()
            elif monotonic() - answer_s > self._share_out_s:
                raise KafkaTimeoutError(
                    f"the parts of topic {self._topic} were not shared out within {self._share_out_s:g} s: "
                    f"{self._coordinator} Iterating on waits for them"
                )
        await self._commit_if_due(monotonic())
        return self._read.popleft() if self._read else await self._record()

    async def _fetched(self, wait_s: float) -> bool:
        """False after so long; the library itself waits for ever while parts are shared out. It is not cancelled, but
        goes on: cancelled, it would count this consumer as busy for good."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(max(1, round(wait_s * 1000))))
        await asyncio.wait({self._fetching}, timeout=wait_s)
        if not self._fetching.done():
            return False
        fetched, self._fetching = self._fetching, None
        fetched.result()
        return True

    async def _fetch(self, timeout_ms: int) -> None:
        for records in (await self._consumer.getmany(timeout_ms=timeout_ms, max_records=_PAGE)).values():
            self._read.extend(records)

    async def _commit_if_due(self, now_s: float) -> None:
        if self._done and now_s >= self._commit_at_s:
            await self._commit(self._request_timeout_s)

    def _remember(self, partition: TopicPartition, event: SagaEvent) -> int | None:
        """The last revision of the saga before, if it is known; a repeat changes nothing."""
        revisions = self._revisions.setdefault(partition, OrderedDict())
        key = event.namespace, event.saga_id, event.uid
        last = revisions.pop(key, None)
        revisions[key] = max(event.revision, last or 0)
        if len(revisions) > _MOST_SAGAS:
            revisions.popitem(last=False)
        return last

    async def _lose(self, partitions: Collection[TopicPartition]) -> None:
        """Others go on with these: what they have had is not known here when a part comes back."""
        try:
            await self._commit(self._last_commit_s)
        except KafkaError as error:  # the iteration's next commit raises it, if it lasts
            log.warning("%s", error)
        finally:
            self._forget(set(partitions))

    def _forget(self, lost: Set[TopicPartition]) -> None:
        self._read = deque(each for each in self._read if TopicPartition(each.topic, each.partition) not in lost)
        if self._given is not None and self._given[0] in lost:
            self._given = None
        for partition in lost:
            self._done.pop(partition, None)
            self._revisions.pop(partition, None)


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc] # shipped without types
    def __init__(self, events: SagaEvents) -> None:
        self._events = events

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._events._lose(revoked)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        pass


def _event(record: Any) -> SagaEvent:
    headers = dict(record.headers)
    if headers.get("content-type") == b"application/json":
        event = json_format.Parse(record.value, SagaEvent(), ignore_unknown_fields=True)
    else:
        event = SagaEvent.FromString(record.value)
    if not event.uid:  # a mirror of an earlier version has it in the header alone
        event.uid = headers.get("ce_id", b"").decode().partition("/")[0]
    return event
