"""Serves a participant until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from sagad.v1 import participant_service_pb2, participant_service_pb2_grpc
from sagad_participant.participant import Participant
from sagad_participant.servicer import MAX_CONCURRENCY, ParticipantServicer

try:
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
except ImportError:
    health = None
try:
    from grpc_reflection.v1alpha import reflection
except ImportError:
    reflection = None

SERVICE = participant_service_pb2.DESCRIPTOR.services_by_name["ParticipantService"].full_name
Interceptor = grpc.aio.ServerInterceptor


class RunningServer:
    """A server that answers. `address` is where: the port is the real one, if 0 was asked for."""

    def __init__(
        self, server: grpc.aio.Server, address: str, servicer: ParticipantServicer, health_servicer: Any | None
    ) -> None:
        self.address = address
        self._servicer = servicer
        self._server = server
        self._health = health_servicer

    async def stop(self, grace_s: float = 10.0) -> None:
        """Takes no new calls, lets those in flight end for `grace_s`, then cancels (and so rolls back) them."""
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        self._servicer.close_sessions()
        await self._server.stop(grace_s)


_OPTIONS = (
    # Without it a second server would share the port silently.
    ("grpc.so_reuseport", 0),
    # A coordinator that vanished without a word is found out, and its session with it.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC ends connections that are pinged every few minutes while they are silent, and a session is silent for long.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


async def start(
    participant: Participant,
    address: str = "127.0.0.1:0",
    *,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[Interceptor] = (),
    max_concurrency: int = MAX_CONCURRENCY,
) -> RunningServer:
    """Starts to serve a participant at HOST:PORT and returns at once; in plaintext unless there are credentials.

    max_concurrency is that of ParticipantServicer: 0 serves no sessions, which pass by the interceptors of calls.
    grpc.health.v1 and reflection are served where grpcio-health-checking and grpcio-reflection are installed.
    Raises OSError if the address cannot be had.
    """
    server = grpc.aio.server(interceptors=list(interceptors), options=_OPTIONS)
    servicer = ParticipantServicer(participant, max_concurrency=max_concurrency)
    participant_service_pb2_grpc.add_ParticipantServiceServicer_to_server(servicer, server)
    health_servicer = await _add_health(server) if health is not None else None
    if reflection is not None:
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: is the port taken, or the host not this machine's?") from error
    await server.start()
    return RunningServer(server, f"{address.rpartition(':')[0]}:{port}", servicer, health_servicer)


async def serve(
    participant: Participant,
    address: str,
    *,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[Interceptor] = (),
    max_concurrency: int = MAX_CONCURRENCY,
    grace_s: float = 10.0,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves a participant until SIGTERM or SIGINT, then stops gracefully. See `start` and RunningServer.stop.

    on_ready is called with the address when it answers. Must run in the main thread.
    """
    with stop_signals() as stopped:
        server = await start(
            participant,
            address,
            credentials=credentials,
            interceptors=interceptors,
            max_concurrency=max_concurrency,
        )
        try:
            if on_ready is not None:
                on_ready(server.address)
            await stopped.wait()
        finally:
            await server.stop(grace_s)


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets, from now to the end of the block. For the main thread."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _add_health(server: grpc.aio.Server) -> Any:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in ("", SERVICE):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    return servicer
