"""One stream of the transitions of all sagas that a filter selects, over all nodes: none missing, none twice."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from sagad.v1.saga_service_pb2 import WatchedEvent, WatchSagasResponse
from sagad_server.api.paging import MAX_PAGE_BYTES
from sagad_server.api.resume_token import resume_token
from sagad_server.api.watch import stopping
from sagad_server.engine.engine import Engine
from sagad_server.engine.follower import Follower
from sagad_server.engine.journal import purged
from sagad_server.engine.saga_then import SagaThen
from sagad_server.storage.events import readable_event
from sagad_server.storage.journal import Cursor
from sagad_server.storage.selection import SagaFilter, selects

_MOST_EVENTS = 64
"""In one message."""

Send = Callable[[bytes], Awaitable[object]]
"""Takes a WatchSagasResponse. Returns when the client has room for more."""


class WatchSagas:
    """Follows the journal for one client. One that is slow or comes back reads pages by itself, until it has caught up
    with the node's common reader."""

    def __init__(
        self, engine: Engine, namespace: str, selection: SagaFilter, send: Send, *, heartbeat_s: float
    ) -> None:
        self._engine = engine
        self._namespace = namespace
        self._selection = selection
        self._send = send
        self._heartbeat_s = heartbeat_s
        self._sent_at = asyncio.get_running_loop().time()

    async def run(self, after: Cursor | None) -> None:
        """Never returns. `after` None: begins now.

        Raises OutOfRange, ResourceExhausted, and Unavailable when the node stops or the store is away.
        """
        if self._engine.draining:
            raise stopping()
        follower = await self._engine.journal.follow(self._namespace, self._selection)
        try:
            self._cursor = follower.since if after is None else after
            if after is not None:
                await self._read_page(follower)  # in any case: the place may be no more
                while self._cursor < follower.since:
                    await self._read_page(follower)
            await self._write(b"")
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
            self._cursor = max(self._cursor, follower.head)  # now, while nothing is in hand
            if follower.closed:
                raise stopping()
            await self._heartbeat()
            await self._wait(follower)

    async def _wait(self, follower: Follower) -> None:
        """For something to take, or until a heartbeat is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._sent_at + self._heartbeat_s):
                await follower.ready()

    async def _heartbeat(self) -> None:
        """If nothing was sent for so long."""
        if asyncio.get_running_loop().time() >= self._sent_at + self._heartbeat_s:
            await self._write(b"")

    async def _read_page(self, follower: Follower) -> None:
        since = follower.since  # can be read, and there may be more by the time that the page is
        page = await self._engine.journal.read(self._cursor)
        if self._namespace in page.purged:
            raise purged(self._namespace)
        rows = (SagaThen(row) for row in page.rows if row.event.namespace == self._namespace)
        wanted = [row for row in rows if selects(self._selection, row)]
        for first in range(0, len(wanted), _MOST_EVENTS):
            await self._tell(wanted[first : first + _MOST_EVENTS])
        self._cursor = page.cursor if page.more else max(page.cursor, since)
        await self._heartbeat()

    async def _tell(self, rows: Iterable[SagaThen]) -> None:
        """Tells those that the client does not know."""
        events: list[bytes] = []
        size = 0
        for row in rows:
            if row.cursor <= self._cursor:
                continue
            event = _told(row)
            size += len(event)
            if events and size > MAX_PAGE_BYTES:
                await self._write(b"".join(events))
                events, size = [], len(event)
            self._cursor = row.cursor
            events.append(event)
        if events:
            await self._write(b"".join(events))

    async def _write(self, events: bytes) -> None:
        """Messages that follow each other are one: so each event is encoded once, whoever is told of it."""
        await self._send(WatchSagasResponse(resume_token=resume_token(self._cursor)).SerializeToString() + events)
        self._sent_at = asyncio.get_running_loop().time()


def _told(then: SagaThen) -> bytes:
    """The event as a WatchSagasResponse with nothing else."""
    if not then.told:
        row = then.row
        event = readable_event(row.event, row.definition_id, row.version)
        watched = WatchedEvent(event=event, labels=row.labels, resume_token=resume_token(row.cursor))
        watched.create_time.FromDatetime(row.create_time)
        then.told = WatchSagasResponse(events=[watched]).SerializeToString()
    return then.told
