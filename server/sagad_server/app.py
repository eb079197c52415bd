"""The composition root: a configuration in, a running server out. The only place that knows every part."""

import asyncio
import gc
import signal
import socket
from collections.abc import Coroutine
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import structlog

from sagad_server.api.admin_service import AdminService, ServerInfo
from sagad_server.api.definition_service import DefinitionService
from sagad_server.api.health import Health
from sagad_server.api.intake import take_in
from sagad_server.api.interceptor import Guard
from sagad_server.api.peers import Peers
from sagad_server.api.saga_service import SagaService
from sagad_server.api.server import SERVICES, add_services, listen, new_server, peer_credentials
from sagad_server.api.start_gate import START_SAGA, StartGate
from sagad_server.config import Config
from sagad_server.config_sections import COMPRESSIONS
from sagad_server.engine.commands import Commands
from sagad_server.engine.definitions import Definitions
from sagad_server.engine.engine import Engine
from sagad_server.engine.loader import Loader
from sagad_server.engine.membership import Membership
from sagad_server.engine.recovery import Recovery
from sagad_server.engine.settings import Settings
from sagad_server.engine.tokens import Tokens
from sagad_server.guard_app import NodeGuard
from sagad_server.http_server import HttpServer
from sagad_server.metrics import Metrics
from sagad_server.mirror_app import NodeMirror
from sagad_server.storage.nodes import Node
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.postgres.store import PostgresStore
from sagad_server.storage.store import Store
from sagad_server.system import SystemClock, SystemRandom
from sagad_server.transport.channel import ParticipantConfig
from sagad_server.transport.grpc import GrpcTransport
from sagad_server.upkeep import clean_up, count, watch_health, when_postgres_is_there

log = structlog.get_logger(__name__)

_GC_THRESHOLDS = (50_000, 20, 50)
"""Hardly anything here is part of a cycle, and thousands of sagas in memory would be walked again and again."""
_COMPLETION_SECRET = "completion-token"  # noqa: S105 - the name of the secret, not the secret


class App:
    """One node. `start`, then `run_until_stopped` or `stop`."""

    def __init__(self, config: Config, store: Store | None = None) -> None:
        """`store` None: PostgreSQL, as the configuration says."""
        self.config = config
        self.address = ""
        """Where gRPC is served, with the port that it has got."""
        self.http_port = 0
        self.metrics = Metrics()
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._stopped = False
        self._serving = False
        self._http: HttpServer | None = None
        self._failure: BaseException | None = None
        self._joined = False

    async def start(self) -> None:
        """Serves once this returns. Raises SchemaTooNew, ListenError, Unavailable."""
        self._peers = Peers(peer_credentials(self.config.grpc))
        self._calls = Guard(self.metrics, self._peers)
        self._server = new_server(self.config.grpc, self._calls)
        try:
            await self._start()
        except BaseException:
            await self._server.stop(None)
            if self._http is not None:
                self._http.stop()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._joined:  # or others would wait for this node until its lease is over
                await self.store.close()
            raise

    async def _start(self) -> None:
        config = self.config
        # First of all: who cannot listen must not push anybody aside.
        self.address = peer_address = listen(self._server, config.grpc, config.grpc.address)
        if config.node.peer_address:
            peer_address = listen(self._server, config.grpc, config.node.peer_address)
        self._http = HttpServer(config.http.address, self.metrics.registry, lambda: self._serving)
        self.http_port = self._http.port
        clock, random = SystemClock(), SystemRandom()
        self.store = self._store or PostgresStore(_postgres_settings(config))
        self._mirror = NodeMirror(config, self.store, clock, random, self.metrics.registry)
        self._guard = NodeGuard(config, clock, random, self.metrics.registry)
        self._peers.store = lambda: self.store
        membership = Membership(self.store, clock, random, config.node.lease)
        await when_postgres_is_there(lambda: membership.join(config.node.name), random)
        self._joined = True
        node = membership.node
        assert node is not None
        tokens = Tokens(await self.store.secret(_COMPLETION_SECRET))
        paces = self._guard.paces(config)
        self.transport = GrpcTransport(_participants(config), clock, random, self.metrics, paces)
        self.engine = Engine(
            self.store,
            clock,
            random,
            self.transport,
            self.metrics,
            tokens,
            _settings(config),
            self._spawn,
            lambda: membership.holds_lease,
        )
        self._guard.follow(self.engine.locks)
        definitions = Definitions(self.store)
        loader = Loader(definitions, clock)
        commands = Commands(self.engine, definitions, loader)
        recovery = Recovery(self.engine, loader, membership)
        recovery.adopt(node.suspects)
        self._health = Health(SERVICES)
        limits = config.validation_limits()
        names = self.transport.configs
        info = _server_info(config, node)
        self._sagas = SagaService(self.engine, commands, loader, limits, self._peers, self._guard.rates)
        busiest = add_services(
            self._server,
            self._sagas,
            DefinitionService(self.store, definitions, self.transport, names, limits),
            AdminService(
                self.engine,
                self.transport,
                names,
                self.metrics,
                info,
                limits,
                self._peers,
                self._stopping.set,
                self._mirror.calls(limits),
                self._guard.redis_health,
            ),
            self._health,
        )
        self._gauges(recovery)
        await self._server.start()
        gates = {f"/{START_SAGA}": StartGate(self.engine.admission, self.metrics)}
        self._spawn(take_in(self._server, self._calls, busiest, gates))
        self._http.start()
        await self.store.announce(config.node.advertised or _reachable(peer_address))
        self._spawn(self.engine.writer.run())
        self._spawn(membership.run(recovery))
        self._spawn(recovery.run())
        self._spawn(watch_health(self.store, self.engine.writer, self._tell_health))
        self._spawn(count(self.store, definitions, self.metrics))
        self._spawn(clean_up(self.store, config))
        self._spawn(self._guard.run())
        self._mirror.start()
        self._tell_health(True)
        log.info("serving", grpc=self.address, http_port=self.http_port, node=node.node_name)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A part of the node that fails takes the node down: the next start goes on from what is durable."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())

    def _fail(self, error: BaseException | None) -> None:
        log.critical("a part of this node failed: it stops", exc_info=error)
        self._failure = self._failure or error
        self._stopping.set()

    def _tell_health(self, healthy: bool) -> None:
        self._serving = healthy and self.engine.holds_lease() and not self.engine.draining
        self._health.set_serving(self._serving)

    def _gauges(self, recovery: Recovery) -> None:
        engine, metrics = self.engine, self.metrics
        metrics.gauge("sagad_sagas_in_memory", "Sagas in this node's memory.", lambda: len(engine.sagas))
        metrics.gauge("sagad_lock_waiters", "Sagas that wait for a lock.", lambda: engine.locks.waiting)
        metrics.gauge("sagad_calls_in_flight", "Calls of participants under way.", lambda: engine.calls.in_flight)
        metrics.gauge("sagad_write_queue", "Transitions that wait for a commit.", lambda: engine.writer.queued)
        metrics.gauge("sagad_overloaded", "1 while new sagas are refused or wait.", lambda: engine.admission.overloaded)
        metrics.gauge("sagad_watches", "Open watch streams.", lambda: engine.watches.count)
        metrics.gauge(
            "sagad_stranded", "Sagas of this node that were not in its memory; expected 0.", lambda: recovery.stranded
        )
        if isinstance(self.store, PostgresStore):
            pool = self.store.pool_sizes
            metrics.gauge("sagad_pool_connections", "Connections of the pool.", lambda: pool()[0])
            metrics.gauge("sagad_pool_connections_idle", "Those that are idle.", lambda: pool()[1])
        metrics.watch_participants(self.transport.states)

    @property
    def stopping(self) -> bool:
        """Somebody has asked for the end, or a part of the node has failed."""
        return self._stopping.is_set()

    async def run_until_stopped(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains. Raises what a part of the node failed with."""
        gc.freeze()  # what lives as long as the process need not be looked at again
        gc.set_threshold(*_GC_THRESHOLDS)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await self._stopping.wait()
        await self.stop()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Finishes the calls under way, bounded by service.drain_timeout; the next start goes on with the rest."""
        if self._stopped:
            return
        self._stopped = True
        log.info("draining", calls_in_flight=self.engine.calls.in_flight)
        self.engine.draining = True
        self._sagas.stop_starting()
        self._tell_health(False)
        if self._failure is None:
            try:
                await asyncio.wait_for(self._drain(), self.config.service.drain_timeout)
            except TimeoutError:
                log.warning("calls are still under way: they will be made again", calls=self.engine.calls.in_flight)
        self.engine.watches.close()
        self.engine.journal.close()
        self.engine.dismiss_waiters()
        await self._server.stop(grace=1)
        await self._mirror.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.transport.close()
        await self._peers.close()
        await self._guard.close()
        assert self._http is not None, "stopped without a start"
        self._http.stop()
        await self.store.close()
        log.info("stopped")

    async def _drain(self) -> None:
        await self.transport.drain()
        while self.engine.calls.in_flight or not self.engine.writer.idle:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)


def _reachable(address: str) -> str:
    """Where others reach who listens at `address`: its host's name, if that is all addresses."""
    host, _, port = address.rpartition(":")
    return f"{socket.gethostname()}:{port}" if host in ("0.0.0.0", "[::]") else address  # noqa: S104 - it is compared


def _settings(config: Config) -> Settings:
    limits = config.limits
    return Settings(
        max_sagas_in_memory=limits.max_sagas_in_memory,
        max_batch=limits.max_batch,
        max_saga_payload_bytes=limits.max_saga_payload_bytes,
        max_watches=limits.max_watches,
        watch_buffer=limits.watch_buffer,
        claim_batch=limits.claim_batch,
        overload_after_ms=round(limits.overload_after * 1000),
    )


def _postgres_settings(config: Config) -> PostgresSettings:
    postgres = config.postgres
    return PostgresSettings(
        dsn=postgres.dsn.get_secret_value(),
        pool_min_size=postgres.pool_min_size,
        pool_max_size=postgres.pool_max_size,
        max_inactive_connection_lifetime_s=postgres.max_inactive_connection_lifetime,
        command_timeout_s=postgres.command_timeout,
        connect_timeout_s=postgres.connect_timeout,
        writer_silence_s=postgres.writer_silence,
    )


def _participants(config: Config) -> dict[str, ParticipantConfig]:
    return {
        name: ParticipantConfig(
            target=one.target,
            step_timeout_s=one.step_timeout,
            max_in_flight=one.max_in_flight,
            tls=one.tls,
            ca_pem=one.ca_file.read_bytes() if one.ca_file is not None else None,
            keepalive_time_s=one.keepalive_time,
            compression=COMPRESSIONS[one.compression],
        )
        for name, one in config.participants.items()
    }


def _server_info(config: Config, node: Node) -> ServerInfo:
    return ServerInfo(
        version=version("sagad"),
        name=config.service.name,
        labels=config.service.labels,
        node_name=node.node_name,
        incarnation=node.incarnation,
        start_time=datetime.now(UTC),
    )
