"""SagaService: starts, shows and watches sagas; `Steering` is its other half."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import structlog

from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.saga_pb2 import SAGA_VIEW_BASIC, SAGA_VIEW_FULL, Saga, SagaView
from sagad_server.api.conversions import read_filter, row_message, saga_message, stats_message
from sagad_server.api.interceptor import Context, Forwarder
from sagad_server.api.locks import add_lock_rows
from sagad_server.api.paging import Page, Pages
from sagad_server.api.repair import Repair
from sagad_server.api.resume_token import read_resume_token
from sagad_server.api.start_command import start_command
from sagad_server.api.start_limits import StartLimits
from sagad_server.api.start_sagas import StartSagas, stopping
from sagad_server.api.steering import DEFAULT_NAMESPACE, Steering, key_of
from sagad_server.api.watch import Watch
from sagad_server.api.watch_sagas import WatchSagas
from sagad_server.domain.errors import NotFound, SagadError
from sagad_server.domain.states import ENDED
from sagad_server.domain.validation import RequestChecker, ValidationLimits
from sagad_server.engine.commands import Commands
from sagad_server.engine.engine import Engine
from sagad_server.engine.loader import Loader, not_found
from sagad_server.engine.watch import purged
from sagad_server.guard.rate_limits import RateLimits
from sagad_server.storage.events import event_message
from sagad_server.storage.lists import MOST_ENDED, MOST_SCANNED, MOST_SCANNED_ENDED
from sagad_server.storage.rows import Key, Position, SagaRow

HEARTBEAT_S = 15.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


class SagaService(Steering):
    """All calls about sagas."""

    def __init__(
        self,
        engine: Engine,
        commands: Commands,
        loader: Loader,
        limits: ValidationLimits,
        forwarder: Forwarder,
        rates: RateLimits | None = None,
        *,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """`rates` None: starts have no rate limits."""
        super().__init__(commands, limits)
        self._engine = engine
        self._store = engine.store
        self._loader = loader
        self._forwarder = forwarder
        self._start_limits = StartLimits(rates, engine)
        self._heartbeat_s = heartbeat_s
        self._starting: set[StartSagas] = set()

    async def StartSaga(self, request: pb.StartSagaRequest, context: Context) -> pb.StartSagaResponse:
        saga_id, wait = request.saga_id or str(self._engine.random.uid()), request.wait
        command = start_command(request, saga_id, self._limits)
        await self._start_limits.refuse(command)
        return pb.StartSagaResponse(saga=saga_message(await self._commands.start(command, wait=wait)))

    async def StartSagas(  # type: ignore[override] # as WatchSaga
        self, requests: AsyncIterator[pb.StartSagasRequest], context: Context
    ) -> None:
        if self._engine.draining:
            raise stopping()
        starting = StartSagas(self._commands, self._limits, self._start_limits, self._forwarder, context.write)
        self._starting.add(starting)
        try:
            await starting.run(requests)
        finally:
            self._starting.discard(starting)

    def stop_starting(self) -> None:
        """The node drains: streams of StartSagas end once what they have read is answered."""
        for starting in self._starting:
            starting.stop()

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        check = self._check(request)
        check.enum("view", request.view, SagaView.DESCRIPTOR)
        check.raise_if_any()
        key = key_of(request)
        saga = await self._saga(key, full=request.view != SAGA_VIEW_BASIC)
        if saga.locks:
            add_lock_rows(saga, (await self._store.locks([key])).get(key, ()))
        return pb.GetSagaResponse(saga=saga)

    async def ListSagas(self, request: pb.ListSagasRequest, context: Context) -> pb.ListSagasResponse:
        check = RequestChecker(self._limits)
        check.namespace("namespace", request.namespace)
        check.saga_filter("filter", request.filter)
        check.page(request.page_size, request.page_token)
        check.enum("view", request.view, SagaView.DESCRIPTOR)
        check.raise_if_any()
        namespace, page = request.namespace or DEFAULT_NAMESPACE, Page(request.page_size)
        pages = Pages("ListSagas", namespace, request.filter)
        after = pages.position(request.page_token, _read_position)
        selection = read_filter(request.filter)
        found = await self._store.list_sagas(namespace, selection, after, page.size + 1, MOST_SCANNED)
        rows = found.rows
        locks = await self._store.locks([row.key for row in rows if row.state not in ENDED])
        response = pb.ListSagasResponse()
        last = None
        for row in rows:
            saga = await (self._full(row) if request.view == SAGA_VIEW_FULL else self._basic(row))
            add_lock_rows(saga, locks.get(row.key, ()))
            if not page.take(saga):
                assert last is not None, "the first one is always taken"
                response.next_page_token = pages.token(_position(last.position))
                return response
            response.sagas.append(saga)
            last = row
        if found.stopped_at is not None:
            response.next_page_token = pages.token(_position(found.stopped_at))
        return response

    async def WatchSaga(  # type: ignore[override] # it writes to the context, so that it ends with the call
        self, request: pb.WatchSagaRequest, context: Context
    ) -> None:
        check = self._check(request)
        check.enum("view", request.view, SagaView.DESCRIPTOR)
        if request.after_revision < 0:
            check.fail("after_revision", f"is {request.after_revision}; 0, or a revision that you have seen, is needed")
        check.raise_if_any()
        watch = Watch(
            self._engine,
            self._saga,
            key_of(request),
            context.write,
            full=request.view == SAGA_VIEW_FULL,
            heartbeat_s=self._heartbeat_s,
        )
        await watch.run(request.after_revision)

    async def WatchSagas(  # type: ignore[override] # as WatchSaga
        self, request: pb.WatchSagasRequest, context: Context
    ) -> None:
        check = RequestChecker(self._limits)
        check.namespace("namespace", request.namespace)
        check.saga_filter("filter", request.filter)
        check.token("resume_token", request.resume_token)
        check.raise_if_any()
        after = read_resume_token(request.resume_token)
        watch = WatchSagas(
            self._engine,
            request.namespace or DEFAULT_NAMESPACE,
            read_filter(request.filter),
            context.write,
            heartbeat_s=self._heartbeat_s,
        )
        await watch.run(after)

    async def RepairSagas(  # type: ignore[override] # as WatchSaga
        self, request: pb.RepairSagasRequest, context: Context
    ) -> None:
        repair = Repair(self._store, self._commands, self._forwarder, request, self._limits)
        await repair.run(context.write)

    async def ListSagaEvents(self, request: pb.ListSagaEventsRequest, context: Context) -> pb.ListSagaEventsResponse:
        check = self._check(request)
        check.page(request.page_size, request.page_token)
        check.enum("view", request.view, SagaView.DESCRIPTOR)
        check.raise_if_any()
        key, page = key_of(request), Page(request.page_size)
        pages = Pages("ListSagaEvents", *key)
        after = pages.position(request.page_token, _read_revision) or 0
        row = await self._store.get_row(key)
        if row is None:
            raise not_found(key)
        events = await self._store.list_events(key, after, page.size + 1)
        if not events and after < row.revision:
            raise purged(key)
        response = pb.ListSagaEventsResponse()
        for event in events:
            message = event_message(event, row.definition_id, row.version, full=request.view == SAGA_VIEW_FULL)
            if not page.take(message):
                response.next_page_token = pages.token(str(response.events[-1].revision))
                break
            response.events.append(message)
        return response

    async def GetSagaStats(self, request: pb.GetSagaStatsRequest, context: Context) -> pb.GetSagaStatsResponse:
        check = RequestChecker(self._limits)
        check.namespace("namespace", request.namespace)
        check.saga_filter("filter", request.filter)
        check.raise_if_any()
        namespace, selection = request.namespace or DEFAULT_NAMESPACE, read_filter(request.filter)
        stats = await self._store.stats(namespace, selection, MOST_ENDED, MOST_SCANNED_ENDED)
        return pb.GetSagaStatsResponse(stats=stats_message(stats))

    async def _saga(self, key: Key, *, full: bool) -> Saga:
        """A saga as it durably is, even if it is parked because nobody can read it. Raises NotFound, Unavailable."""
        try:
            return saga_message(await self._commands.get(key), full=full)
        except SagadError:
            raise
        except Exception as error:
            row = await self._store.get_row(key)
            if row is None or not row.incident_id:
                raise
            return _unreadable(row, error)

    async def _full(self, row: SagaRow) -> Saga:
        """A row that was listed a moment ago, with its payloads."""
        try:
            return await self._saga(row.key, full=True)
        except NotFound:  # meanwhile it was purged, and its tombstone with it
            return row_message(row)

    async def _basic(self, row: SagaRow) -> Saga:
        try:
            return saga_message(await self._loader.listed(row))
        except SagadError:
            raise
        except Exception as error:  # noqa: BLE001 - one saga whose data cannot be read must not hide all the others
            return _unreadable(row, error)


def _unreadable(row: SagaRow, error: Exception) -> Saga:
    log.warning("saga cannot be read", namespace=row.namespace, saga_id=row.saga_id, exc_info=error)
    return row_message(row)


def _position(position: Position) -> str:
    create_time, saga_id = position
    return f"{(create_time - _EPOCH) // timedelta(microseconds=1)} {saga_id}"


def _read_position(text: str) -> Position:
    microseconds, _, saga_id = text.partition(" ")
    if "\0" in saga_id:
        raise ValueError(saga_id)
    return _EPOCH + timedelta(microseconds=int(microseconds)), saga_id


def _read_revision(text: str) -> int:
    revision = int(text)
    if not 0 < revision < 2**63:
        raise ValueError(text)
    return revision
