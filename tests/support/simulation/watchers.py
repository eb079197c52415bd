"""Clients that watch, over all the streams that break under them."""

from typing import TYPE_CHECKING

from sagad.v1.saga_pb2 import Saga
from sagad.v1.saga_service_pb2 import WatchSagaResponse, WatchSagasResponse
from sagad_server.api.conversions import saga_message
from sagad_server.api.resume_token import read_resume_token
from sagad_server.api.watch import Watch
from sagad_server.api.watch_sagas import WatchSagas
from sagad_server.domain.errors import NotFound, OutOfRange, Unavailable
from sagad_server.storage.rows import Key
from sagad_server.storage.selection import SagaFilter
from support.simulation.history import Watched, WatchedAll, WatchEnd
from support.simulation.node import ConnectionLost, SimulatedNode
from support.simulation.recipes import DEFINITION_IDS

if TYPE_CHECKING:
    from support.simulation.workload import Workload

_HEARTBEAT_S = 3.0


class Watchers:
    """By WatchSaga those of some sagas, by WatchSagas one of those of a definition, or of all."""

    def __init__(self, workload: "Workload") -> None:
        self._workload = workload
        self._history = workload.world.history

    def begin(self) -> None:
        self._workload.spawn_endless(self._watch_all(self._workload.chance.choice(["", *DEFINITION_IDS])))

    def watch_soon(self, key: Key) -> None:
        watched = Watched(key)
        self._history.watched.append(watched)
        self._workload.spawn_endless(self._watch(watched))

    async def _watch(self, watched: Watched) -> None:
        while watched.end is None:
            try:
                await self._workload.any_node().ask(lambda node: self._stream(node, watched))
                watched.end = WatchEnd.SAGA_ENDED
            except OutOfRange as error:
                if error.reason != "PURGED":
                    raise
                watched.end = WatchEnd.PURGED
            except NotFound:
                if watched.revision:
                    raise
                await self._workload.pause()
            except (Unavailable, ConnectionLost):
                await self._workload.pause()

    async def _stream(self, node: SimulatedNode, watched: Watched) -> None:
        async def read(key: Key, *, full: bool) -> Saga:
            return saga_message(await node.commands.get(key), full=full)

        async def send(message: WatchSagaResponse) -> None:
            self._show(watched, message)
            await self._read_slowly(node)

        watch = Watch(node.engine, read, watched.key, send, full=False, heartbeat_s=_HEARTBEAT_S)
        await watch.run(watched.revision)

    async def _read_slowly(self, node: SimulatedNode) -> None:
        if self._workload.world.sky.strikes("slow_reader"):
            await node.clock.sleep(self._workload.chance.random() * 2)

    def _show(self, watched: Watched, message: WatchSagaResponse) -> None:
        saga = self._workload.world.database.sagas.get(watched.key)
        if saga is None or saga.row.revision < message.revision:
            watched.early.append(message.revision)
        if message.HasField("snapshot"):
            watched.snapshot_revision = message.revision
        elif message.HasField("event"):
            watched.seen.append((message.revision, message.event.state, message.event.cause))

    async def _watch_all(self, definition_id: str) -> None:
        watched = WatchedAll(definition_id)
        self._history.watched_all.append(watched)
        while True:
            try:
                await self._workload.any_node().ask(lambda node, watched=watched: self._stream_all(node, watched))
            except OutOfRange as error:
                if error.reason != "JOURNAL_PURGED":
                    raise
                watched.purged = True
                watched = WatchedAll(definition_id)
                self._history.watched_all.append(watched)
            except (Unavailable, ConnectionLost):
                await self._workload.pause()

    async def _stream_all(self, node: SimulatedNode, watched: WatchedAll) -> None:
        async def send(answer: bytes) -> None:
            message = WatchSagasResponse.FromString(answer)
            watched.token = message.resume_token
            cursor = read_resume_token(watched.token)
            assert cursor is not None
            if watched.begin is None:
                watched.begin = cursor
            watched.seen += [((one.event.namespace, one.event.saga_id), one.event.revision) for one in message.events]
            await self._read_slowly(node)

        selection = SagaFilter(definition_id=watched.definition_id)
        watch = WatchSagas(node.engine, "default", selection, send, heartbeat_s=_HEARTBEAT_S)
        await watch.run(read_resume_token(watched.token))
