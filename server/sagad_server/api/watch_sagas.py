"""One stream of the transitions of all sagas that a filter selects, over all nodes: none missing, none twice."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog
from google.protobuf.message import DecodeError

from sagad.storage.v1 import storage_pb2
from sagad.v1.saga_pb2 import SagaEvent
from sagad.v1.saga_service_pb2 import Heartbeat, WatchSagasResponse
from sagad_server.api.conversions import event_message
from sagad_server.api.resume_token import resume_token
from sagad_server.api.watch import stopping
from sagad_server.domain.states import ENDED
from sagad_server.engine.engine import Engine
from sagad_server.engine.journal import Follower, purged
from sagad_server.storage.journal import Cursor, JournalRow
from sagad_server.storage.selection import selects
from sagad_server.storage.store import SagaFilter

log = structlog.get_logger(__name__)

Send = Callable[[WatchSagasResponse], Awaitable[object]]
"""Returns when the client has room for more."""


@dataclass(slots=True)
class _SagaThen:
    """What a filter looks at: a saga as a transition left it."""

    state: int
    definition_id: str
    version: str
    labels: Mapping[str, str]
    parking_mask: int
    category: int
    create_time: datetime
    end_time: datetime | None


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
            await self._beat()
            while True:
                await self._go_on(follower)
        finally:
            self._engine.journal.unfollow(follower)

    async def _go_on(self, follower: Follower) -> None:
        if self._cursor < follower.since:
            await self._read_page(follower)
            return
        row = follower.take()
        if row is not None:
            await self._tell(row)
            return
        self._cursor = max(self._cursor, follower.head)
        if follower.closed:
            raise stopping()
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await follower.ready()
        except TimeoutError:
            self._cursor = max(self._cursor, follower.head)
            await self._beat()

    async def _read_page(self, follower: Follower) -> None:
        since = follower.since  # can be read, and there may be more by the time that the page is
        page = await self._engine.journal.read(self._cursor)
        if self._namespace in page.purged:
            raise purged(self._namespace)
        for row in [row for row in page.rows if self._wants(row)]:
            await self._tell(row)
        self._cursor = page.cursor if page.more else max(page.cursor, since)
        if asyncio.get_running_loop().time() - self._sent_at > self._heartbeat_s:
            await self._beat()

    async def _tell(self, row: JournalRow) -> None:
        if row.cursor <= self._cursor:
            return
        self._cursor = row.cursor
        message = WatchSagasResponse(event=_event(row), labels=row.labels)
        message.create_time.FromDatetime(row.create_time)
        await self._write(message)

    async def _beat(self) -> None:
        await self._write(WatchSagasResponse(heartbeat=Heartbeat()))

    async def _write(self, message: WatchSagasResponse) -> None:
        message.resume_token = resume_token(self._cursor)
        await self._send(message)
        self._sent_at = asyncio.get_running_loop().time()

    def _wants(self, row: JournalRow) -> bool:
        if row.event.namespace != self._namespace:
            return False
        return self._selects_all or selects(self._selection, _saga_then(row))


def _saga_then(row: JournalRow) -> _SagaThen:
    state = _state(row)
    end_time = None
    if state in ENDED:
        # Once it has left its end, its row tells nothing of that end, but then the transition was what made it.
        end_time = min(row.end_time or row.event.time, row.event.time)
    return _SagaThen(
        state=state,
        definition_id=row.definition_id,
        version=row.version,
        labels=row.labels,
        parking_mask=row.parking_mask,
        category=row.category,
        create_time=row.create_time,
        end_time=end_time,
    )


def _state(row: JournalRow) -> int:
    try:
        return storage_pb2.EventRecord.FromString(row.event.body).state
    except DecodeError:
        return 0


def _event(row: JournalRow) -> SagaEvent:
    event = row.event
    try:
        return event_message(event, row.definition_id, row.version)
    except Exception as error:  # one event that cannot be read must not hide all the others
        log.warning("event cannot be read", saga_id=event.saga_id, revision=event.revision, exc_info=error)
    message = SagaEvent(
        namespace=event.namespace,
        saga_id=event.saga_id,
        revision=event.revision,
        cause=event.cause,  # type: ignore[arg-type] # the same numbers
        definition_id=row.definition_id,
        version=row.version,
    )
    message.time.FromDatetime(event.time)
    return message
