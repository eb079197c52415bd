"""WatchSagas as a client reads it."""

from collections import deque
from typing import Any

import grpc.aio

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from support.server import Server


class Stream:
    """A watch of many sagas that has begun."""

    def __init__(self, call: Any, token: str) -> None:
        self.call = call
        self.token = token
        """Of the last event that was taken."""
        self._events: deque[pb.WatchedEvent] = deque()

    async def message(self) -> pb.WatchSagasResponse:
        """The next one, of which each has a token: that of its last event."""
        message: pb.WatchSagasResponse = await self.call.read()
        assert message is not grpc.aio.EOF
        assert message.resume_token
        assert not message.events or message.events[-1].resume_token == message.resume_token
        return message

    async def next(self) -> pb.WatchedEvent:
        """The next event."""
        while not self._events:
            self._events.extend((await self.message()).events)
        watched = self._events.popleft()
        self.token = watched.resume_token
        return watched

    async def take(self, count: int) -> list[saga_pb2.SagaEvent]:
        """So many events."""
        return [(await self.next()).event for _ in range(count)]

    async def until(self, saga_id: str, revision: int) -> None:
        """Reads up to this event."""
        while (event := (await self.next()).event) and (event.saga_id, event.revision) != (saga_id, revision):
            pass

    async def until_heartbeat(self) -> list[saga_pb2.SagaEvent]:
        """Of a watch that was resumed: what there was to read when it began."""
        events: list[saga_pb2.SagaEvent] = []
        while watched := (await self.message()).events:
            events += (each.event for each in watched)
        return events


async def watching(server: Server, resume_token: str = "", namespace: str = "", **selection: Any) -> Stream:
    """A watch; without a token it has begun when this returns."""
    request = pb.WatchSagasRequest(
        namespace=namespace, filter=saga_pb2.SagaFilter(**selection), resume_token=resume_token
    )
    stream = Stream(server.sagas.WatchSagas(request), resume_token)
    if not resume_token:
        first = await stream.message()
        assert not first.events
        stream.token = first.resume_token
    return stream


async def journal(server: Server, saga_id: str) -> list[saga_pb2.SagaEvent]:
    """A saga's events, as they are listed."""
    return list((await server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id=saga_id, page_size=1000))).events)


def numbers(events: list[saga_pb2.SagaEvent]) -> list[tuple[str, int]]:
    return [(event.saga_id, event.revision) for event in events]
