"""One stream of a saga's transitions: in order, none missing, none twice, only what is durable."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from sagad.v1.saga_pb2 import Saga
from sagad.v1.saga_service_pb2 import Heartbeat, WatchSagaResponse
from sagad_server.domain.errors import OutOfRange, Unavailable
from sagad_server.domain.states import ENDED, SagaState
from sagad_server.engine.engine import RETRY_AFTER_MS, Engine
from sagad_server.engine.loader import not_found
from sagad_server.engine.watch import Subscription, purged
from sagad_server.storage.events import event_message
from sagad_server.storage.rows import EventRow, Key

_JOURNAL_PAGE = 64

Send = Callable[[WatchSagaResponse], Awaitable[object]]
"""Returns when the client has room for more."""


class Read(Protocol):
    """Reads a saga as it durably is."""

    def __call__(self, key: Key, *, full: bool) -> Awaitable[Saga]:
        """Raises NotFound, Unavailable."""


class Watch:
    """Follows a saga for one client: the journal first, then what the engine publishes, and the journal again for what
    it does not.

    So a slow client costs the bounded buffer of its subscription and a page of the journal, and nothing else.
    """

    def __init__(self, engine: Engine, read: Read, key: Key, send: Send, *, full: bool, heartbeat_s: float) -> None:
        self._engine = engine
        self._read = read
        self._key = key
        self._send = send
        self._full = full
        self._heartbeat_s = heartbeat_s
        self._definition = ("", "")
        self._revision = 0
        """The last one that the client knows."""
        self._ended = False
        """That revision is an end. Still there may be more: a succeeded saga can be compensated."""

    async def run(self, after_revision: int) -> None:
        """Returns after the saga's end.

        Raises NotFound, OutOfRange, ResourceExhausted, and Unavailable when the node stops.
        """
        if self._engine.draining:
            raise stopping()
        watches = self._engine.watches
        subscription = watches.subscribe(self._key)  # before anything is read, so that nothing falls in between
        try:
            if after_revision:
                await self._resume(after_revision)
            else:
                await self._begin()
            subscription.reach(self._revision)
            await self._follow(subscription)
        finally:
            watches.unsubscribe(subscription)

    async def _begin(self) -> None:
        saga = await self._read(self._key, full=self._full)
        self._definition = saga.definition_id, saga.version
        self._revision = saga.revision
        self._ended = SagaState(saga.state) in ENDED
        await self._send(WatchSagaResponse(revision=saga.revision, snapshot=saga))

    async def _resume(self, after_revision: int) -> None:
        row = await self._engine.store.get_row(self._key)
        if row is None:
            raise not_found(self._key)
        if after_revision > row.revision:
            raise OutOfRange(
                f"saga {row.saga_id!r} is at revision {row.revision}: {after_revision} is not known yet",
                reason="REVISION_UNKNOWN",
                metadata={"revision": str(row.revision)},
            )
        self._definition = row.definition_id, row.version
        self._revision = after_revision
        self._ended = SagaState(row.state) in ENDED
        await self._read_journal(row.revision)

    async def _follow(self, subscription: Subscription) -> None:
        while True:
            event = subscription.take()
            if event is not None and event.revision <= self._revision + 1:
                if event.revision > self._revision:
                    await self._tell(event)
            elif self._revision < subscription.stands_at:
                await self._read_journal(subscription.stands_at)
            elif self._ended:
                return
            elif subscription.closed:
                raise stopping()
            else:
                await self._wait(subscription)

    async def _wait(self, subscription: Subscription) -> None:
        """For more, or until a heartbeat is due."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await subscription.ready(self._revision)
        except TimeoutError:
            await self._send(WatchSagaResponse(revision=self._revision, heartbeat=Heartbeat()))

    async def _read_journal(self, revision: int) -> None:
        """Tells all that is durable up to `revision`, at least."""
        while self._revision < revision:
            events = await self._engine.store.list_events(self._key, self._revision, _JOURNAL_PAGE)
            if not events or events[0].revision != self._revision + 1:
                raise purged(self._key)
            for event in events:
                await self._tell(event)

    async def _tell(self, event: EventRow) -> None:
        message = event_message(event, *self._definition, full=self._full)
        self._revision = event.revision
        self._ended = SagaState(message.state) in ENDED
        await self._send(WatchSagaResponse(revision=event.revision, event=message))


def stopping() -> Unavailable:
    return Unavailable(
        "this node is shutting down: watch again from the last revision seen",
        reason="DRAINING",
        retry_after_ms=RETRY_AFTER_MS,
    )
