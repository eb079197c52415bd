"""The asynchronous client: sagas, and the way to definitions and administration."""
# ruff: noqa: A002 (`input`, `filter` and `list` are the contract's own words)

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Self

import grpc

from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.saga_pb2 import Saga, SagaEvent, SagaFilter, SagaStats, SagaView
from sagad_client.admin import Admin
from sagad_client.backoff import Backoff
from sagad_client.connection import Connection
from sagad_client.definitions import Definitions
from sagad_client.durations import DurationLike, to_duration
from sagad_client.errors import DeadlineExceeded
from sagad_client.ids import new_saga_id
from sagad_client.pages import Page, Pages
from sagad_client.payloads import PayloadLike, to_payload
from sagad_client.starts import Started, StartRequests, Starts
from sagad_client.states import SETTLED
from sagad_client.steering import Steering
from sagad_client.watch import watch_saga, watch_sagas

DEFAULT_TARGET = "127.0.0.1:7400"

_WAIT_SLICE_S = 60.0  # a wait is asked anew so often, so that a connection that died unseen does not hold it for ever


class Client(Steering):
    """A client of one sagad server, for one namespace.

        async with Client("127.0.0.1:7400") as client:
            saga = await client.start("order", {"sku": "A-1", "quantity": 2})
            saga = await client.wait(saga.saga_id)

    Calls that can be made twice without harm are made again when the server is away for a moment: all reads, `start`,
    `compensate`, `complete_step`, and creating, activating or deactivating a definition. So are `retry`, `skip_step`
    and `abandon`, whose revision lets them have their effect once only: where an attempt got no answer and the next one
    meets ABORTED, the error says that the first may have been it. `admin.purge` is made once.

    Every call raises SagadError, of the subclass for its gRPC code. Arguments that cannot be sent raise ValueError or
    TypeError.

    Args:
        target: address of the server, `host:port` or any gRPC target.
        namespace: of everything this client asks for; 1-63 characters of a-z, 0-9, '-'.
        tls: True for TLS with the system's certificates, gRPC credentials for others, False for plaintext.
        timeout_s: bound of each call over all its attempts, in seconds, above 0. Watches and waits have none.
        backoff: how often, and when, a call is made again.
        silence_s: a watch that brings nothing for so many seconds, not even a heartbeat, counts as broken; so does a
            stream of `start_many` that owes answers and brings none.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        namespace: str = "default",
        tls: bool | grpc.ChannelCredentials = False,
        timeout_s: float = 30.0,
        backoff: Backoff | None = None,
        silence_s: float = 60.0,
    ) -> None:
        super().__init__(Connection(target, tls=tls, timeout_s=timeout_s, backoff=backoff or Backoff()), namespace)
        self._silence_s = silence_s
        self.definitions = Definitions(self._connection, namespace)
        """Calls about definitions."""
        self.admin = Admin(self._connection, namespace)
        """Calls about the server itself."""

    async def __aenter__(self) -> Self:
        self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def start(
        self,
        definition_id: str,
        input: PayloadLike = None,
        *,
        saga_id: str = "",
        version: str = "",
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: DurationLike | None = None,
        wait: bool = False,
        wait_timeout_s: float = 3600.0,
    ) -> Saga:
        """Start a saga; the answer means that it is durable. Repeating it with the same id and content changes nothing.

        Args:
            definition_id: the recipe.
            input: a JSON value, bytes or a Payload; at most 256 KiB.
            saga_id: the idempotency key; a fresh UUIDv7 where it is empty.
            version: of the recipe; empty means the highest active one.
            labels: to find the saga by; at most 32.
            metadata: sent to the participants with every call; at most 16.
            timeout: the saga's deadline from its start, a timedelta or seconds; default: that of the definition.
            wait: answer only when the saga has ended or is parked.
            wait_timeout_s: bound of that wait, in seconds. Its end is the end of the wait, not of the saga.

        Raises:
            NotFound: no such definition. FailedPrecondition: it is not active. AlreadyExists: the id is taken by a saga
            with other content. DeadlineExceeded: the wait is over, and the saga goes on.
        """
        request = pb.StartSagaRequest(
            namespace=self.namespace,
            saga_id=saga_id or new_saga_id(),
            definition_id=definition_id,
            version=version,
            input=to_payload(input),
            labels=labels,
            metadata=metadata,
            timeout=None if timeout is None else to_duration(timeout),
            wait=wait,
        )
        if wait:
            return await self._start_and_wait(request, wait_timeout_s)
        return (await self._connection.call(self._stub.StartSaga, request)).saga

    async def _start_and_wait(self, request: pb.StartSagaRequest, wait_timeout_s: float) -> Saga:
        now = asyncio.get_running_loop().time
        deadline = now() + wait_timeout_s
        while True:
            remaining_s = deadline - now()
            slice_s = min(remaining_s, _WAIT_SLICE_S)
            try:
                return (await self._connection.call(self._stub.StartSaga, request, timeout_s=slice_s)).saga
            except DeadlineExceeded:
                if remaining_s <= slice_s:
                    raise

    def start_many(self, requests: StartRequests, *, concurrency: int = 2048) -> AsyncGenerator[Started, None]:
        """Start many sagas over one stream; yield the result of each, in any order, once it is durable.

        A request with `wait` is answered when its saga has ended or is parked. A broken stream is opened again and what
        was not answered is sent again, as is, within the client's `backoff`, what is answered UNAVAILABLE, or
        RESOURCE_EXHAUSTED with RetryInfo: all that is safe by the ids. A stream that brings no answer for the client's
        `silence_s` counts as broken, unless all that is not answered has `wait`: those take as long as their sagas do,
        and their bound is yours to set. Requests are taken no faster than results are.
        Leave the iteration by `aclose()` (`contextlib.aclosing`); what was sent may be started all the same.

        Args:
            requests: plain or asynchronous, as many as you like, each at most 1 MiB. Without a saga_id it gets a fresh
                one, without a namespace the client's.
            concurrency: 1-4,096 requests that are taken and not yielded yet; fewer where they have 8 MiB together.

        Raises:
            SagadError: the stream was refused, or broke `backoff.attempts` times in a row without a single answer: what
            was not yielded may have been started. ValueError: concurrency is out of bounds, or a request is for another
            namespace. This, and what the iterable of requests raises, comes after the results of those before it.
        """
        return Starts(
            self._connection, self._stub.StartSagas, self.namespace, requests, concurrency, self._silence_s
        ).run()

    async def get(self, saga_id: str, *, view: SagaView.ValueType = SagaView.SAGA_VIEW_FULL) -> Saga:
        """One saga, with its payloads unless the view is BASIC. Raises NotFound."""
        request = pb.GetSagaRequest(namespace=self.namespace, saga_id=saga_id, view=view)
        return (await self._connection.call(self._stub.GetSaga, request)).saga

    def watch(
        self, saga_id: str, after_revision: int = 0, *, view: SagaView.ValueType = SagaView.SAGA_VIEW_BASIC
    ) -> AsyncGenerator[pb.WatchSagaResponse, None]:
        """Follow a saga until its end: a snapshot (if after_revision is 0), then each event, none missing or twice.

        A broken stream is resumed after the last revision seen; heartbeats are not passed on. Each message has the
        `revision` to resume with in another process. Leave the iteration by `aclose()` (`contextlib.aclosing`).

        Raises:
            NotFound: no such saga. OutOfRange: the revision is purged, or not yet known. Unavailable: the stream broke
            too often in a row.
        """
        request = pb.WatchSagaRequest(
            namespace=self.namespace, saga_id=saga_id, after_revision=after_revision, view=view
        )
        return watch_saga(self._connection, self._stub.WatchSaga, request, silence_s=self._silence_s)

    def watch_all(
        self, filter: SagaFilter | None = None, *, resume_token: str = "", heartbeats: bool = False
    ) -> AsyncGenerator[pb.WatchedEvent, None]:
        """Follow all sagas that a filter selects, for ever: each one's events in order, none missing or twice.

        A broken stream is resumed after the last event seen. Each event has the `resume_token` to go on with in another
        process. To know how sagas stand as well, list them once the first heartbeat has come: what follows is newer,
        or known by its `revision`. Leave the iteration by `aclose()` (`contextlib.aclosing`).

        Args:
            filter: of the sagas as each transition leaves them; None selects all.
            resume_token: goes on behind the event that it came with; empty begins now.
            heartbeats: pass heartbeats on, as events that have only a token: the first one as soon as the watch has
                begun, others every some seconds without an event.

        Raises:
            OutOfRange: events behind the token are purged, or the database is not the one that it is from. Unavailable:
            the stream broke too often in a row.
        """
        request = pb.WatchSagasRequest(namespace=self.namespace, filter=filter, resume_token=resume_token)
        method = self._stub.WatchSagas
        return watch_sagas(self._connection, method, request, heartbeats=heartbeats, silence_s=self._silence_s)

    async def wait(self, saga_id: str, *, timeout_s: float | None = None) -> Saga:
        """Wait until the saga has ended or is parked, and return it.

        Args:
            saga_id: the saga.
            timeout_s: bound of the wait, in seconds; None waits as long as it takes.

        Raises:
            NotFound: no such saga. DeadlineExceeded: the wait is over; the saga goes on.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._wait(saga_id)
        except TimeoutError:
            text = f"saga {saga_id!r} has neither ended nor parked within {timeout_s:g} s; it goes on"
            raise DeadlineExceeded(text, code=grpc.StatusCode.DEADLINE_EXCEEDED) from None

    async def _wait(self, saga_id: str) -> Saga:
        saga = await self.get(saga_id)
        while saga.state not in SETTLED:
            await self._until_settled(saga_id, saga.revision)
            saga = await self.get(saga_id)  # it may move again by now: a saga that parked may have been retried
        return saga

    async def _until_settled(self, saga_id: str, revision: int) -> None:
        async with aclosing(self.watch(saga_id, revision)) as messages:
            async for message in messages:
                if message.event.state in SETTLED:
                    return

    def list(
        self,
        filter: SagaFilter | None = None,
        *,
        page_size: int = 0,
        page_token: str = "",
        view: SagaView.ValueType = SagaView.SAGA_VIEW_BASIC,
    ) -> Pages[Saga]:
        """The sagas that a filter selects, newest first. page_size is 0-1,000 a page; 0 means 50. Where the filter
        selects few of many, pages may be shorter, even empty, and have others behind them."""

        async def fetch(token: str) -> Page[Saga]:
            request = pb.ListSagasRequest(
                namespace=self.namespace, filter=filter, page_size=page_size, page_token=token, view=view
            )
            response = await self._connection.call(self._stub.ListSagas, request)
            return Page(response.sagas, response.next_page_token)

        return Pages(fetch, page_token)

    def events(
        self,
        saga_id: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        view: SagaView.ValueType = SagaView.SAGA_VIEW_BASIC,
    ) -> Pages[SagaEvent]:
        """A saga's transitions, oldest first. page_size is 0-1,000 a page; 0 means 50."""

        async def fetch(token: str) -> Page[SagaEvent]:
            request = pb.ListSagaEventsRequest(
                namespace=self.namespace, saga_id=saga_id, page_size=page_size, page_token=token, view=view
            )
            response = await self._connection.call(self._stub.ListSagaEvents, request)
            return Page(response.events, response.next_page_token)

        return Pages(fetch, page_token)

    async def stats(self, filter: SagaFilter | None = None) -> SagaStats:
        """How many sagas the filter selects, by state, and how long they took."""
        request = pb.GetSagaStatsRequest(namespace=self.namespace, filter=filter)
        return (await self._connection.call(self._stub.GetSagaStats, request)).stats
