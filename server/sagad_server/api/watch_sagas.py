"""One stream of the transitions of all sagas that a filter selects, over all nodes: none missing, none twice."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sagad.v1.saga_service_pb2 import WatchedEvent, WatchSagasResponse
from sagad_server.api.paging import MAX_PAGE_BYTES
from sagad_server.api.resume_token import resume_token
from sagad_server.api.saga_then import SagaThen
from sagad_server.api.watch import stopping
from sagad_server.engine.engine import Engine
from sagad_server.engine.journal import Follower, purged
from sagad_server.storage.events import readable_event
from sagad_server.storage.journal import Cursor, JournalRow
from sagad_server.storage.selection import selects
from sagad_server.storage.store import SagaFilter

_MOST_EVENTS = 64
"""In one message."""

Send = Callable[[WatchSagasResponse], Awaitable[object]]
"""Returns when the client has room for more."""


class WatchSagas:
    """Follows the journal for one client. One that is slow or comes back reads pages by itself, until it has caught up
    with the node's common reader."""

    def __init__(
        self, engine: Engine, namespace: str, selection: SagaFilter, send: Send, *, heartbeat_s: float
    ) -> None:
        self._engine = engine
        self._namespace = namespace
        self._selection = selection
        self._selects_all = selection == SagaFilter()
        self._send = send
        self._heartbeat_s = heartbeat_s
        self._sent_at = asyncio.get_running_loop().time()

    async def run(self, after: Cursor | None) -> None:
        """Never returns. `after` None: begins now.

        Raises OutOfRange, ResourceExhausted, and Unavailable when the node stops or the store is away.
        """
        if self._engine.draining:
            raise stopping()
        follower = await self._engine.journal.follow(self._namespace, self._wants)
        try:
            self._cursor = follower.head if after is None else after
            if after is not None:
                await self._read_page(follower)  # in any case: the place may be no more
                while self._cursor < follower.since:
                    await self._read_page(follower)
            await self._write(WatchSagasResponse())
            while True:
                await self._go_on(follower)
        finally:
            self._engine.journal.unfollow(follower)

    async def _go_on(self, follower: Follower) -> None:
        if self._cursor < follower.since:
            await self._read_page(follower)
        elif rows := follower.take(_MOST_EVENTS):
            await self._tell(rows)
        else:
            self._cursor = max(self._cursor, follower.head)
            if follower.closed:
                raise stopping()
            await self._wait(follower)

    async def _wait(self, follower: Follower) -> None:
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await follower.ready()
        except TimeoutError:
            self._cursor = max(self._cursor, follower.head)
            await self._write(WatchSagasResponse())

    async def _read_page(self, follower: Follower) -> None:
        since = follower.since  # can be read, and there may be more by the time that the page is
        page = await self._engine.journal.read(self._cursor)
        if self._namespace in page.purged:
            raise purged(self._namespace)
        wanted = [row for row in page.rows if self._wants(row)]
        for first in range(0, len(wanted), _MOST_EVENTS):
            await self._tell(wanted[first : first + _MOST_EVENTS])
        self._cursor = page.cursor if page.more else max(page.cursor, since)
        if asyncio.get_running_loop().time() - self._sent_at > self._heartbeat_s:
            await self._write(WatchSagasResponse())

    async def _tell(self, rows: Sequence[JournalRow]) -> None:
        """Tells those that the client does not know."""
        message, size = WatchSagasResponse(), 0
        for row in rows:
            if row.cursor <= self._cursor:
                continue
            watched = _watched(row)
            size += watched.ByteSize()
            if message.events and size > MAX_PAGE_BYTES:
                await self._write(message)
                message, size = WatchSagasResponse(), watched.ByteSize()
            self._cursor = row.cursor
            message.events.append(watched)
        if message.events:
            await self._write(message)

    async def _write(self, message: WatchSagasResponse) -> None:
        message.resume_token = resume_token(self._cursor)
        await self._send(message)
        self._sent_at = asyncio.get_running_loop().time()

    def _wants(self, row: JournalRow) -> bool:
        if row.event.namespace != self._namespace:
            return False
        return self._selects_all or selects(self._selection, SagaThen(row))


def _watched(row: JournalRow) -> WatchedEvent:
    event = readable_event(row.event, row.definition_id, row.version)
    watched = WatchedEvent(event=event, labels=row.labels, resume_token=resume_token(row.cursor))
    watched.create_time.FromDatetime(row.create_time)
    return watched
