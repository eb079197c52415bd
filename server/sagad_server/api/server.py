"""The gRPC server: what it serves, and how it treats connections."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sagad.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    definition_service_pb2,
    definition_service_pb2_grpc,
    saga_service_pb2,
    saga_service_pb2_grpc,
)
from sagad_server.api import health
from sagad_server.api.admin_service import AdminService
from sagad_server.api.definition_service import DefinitionService
from sagad_server.api.health import Health
from sagad_server.api.interceptor import Guard
from sagad_server.api.saga_service import SagaService
from sagad_server.config_sections import COMPRESSIONS, Grpc

SERVICES = (
    saga_service_pb2.DESCRIPTOR.services_by_name["SagaService"].full_name,
    definition_service_pb2.DESCRIPTOR.services_by_name["DefinitionService"].full_name,
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
)
_SHORTEST_PING_INTERVAL_MS = 10_000
_MANY_PENDING = 5000
_MOST_PENDING = 6000
_BUSIEST = (
    *(f"/{SERVICES[0]}/{method}" for method in ("StartSaga", "GetSaga", "CompleteStep")),
    f"/{health.SERVICE_NAME}/Check",  # not to wait behind the others
)
"""Methods whose calls are taken in side by side."""

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic for type checkers only


class ListenError(Exception):
    """The server cannot listen where it is told to."""


def new_server(config: Grpc, guard: Guard) -> grpc.aio.Server:
    """A server without services that does not listen yet."""
    return grpc.aio.server(
        interceptors=[guard],
        options=_options(config),
        compression=COMPRESSIONS[config.compression],
    )


def add_services(
    server: grpc.aio.Server,
    sagas: SagaService,
    definitions: DefinitionService,
    admin: AdminService,
    health_servicer: Health,
) -> "dict[str, Handler]":
    """Gives the server these services, grpc.health.v1 and reflection. Returns the handlers of the busiest methods."""
    noting = _Noting(server)
    noted = cast("grpc.aio.Server", noting)  # of which nothing else is asked
    saga_service_pb2_grpc.add_SagaServiceServicer_to_server(sagas, noted)
    definition_service_pb2_grpc.add_DefinitionServiceServicer_to_server(definitions, noted)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, noted)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, noted)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return {method: noting.handlers[method] for method in _BUSIEST}


class _Noting:
    """What services are added to in place of a server, which does not tell their handlers."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self.handlers: dict[str, Handler] = {}
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers
        self._server = server

    def add_registered_method_handlers(self, service: str, handlers: "dict[str, Handler]") -> None:
        self._server.add_registered_method_handlers(service, handlers)
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


def peer_credentials(config: Grpc) -> grpc.ChannelCredentials | None:
    """How nodes call each other: with TLS if they serve it, trusting the certificate that they all have."""
    if config.tls_cert_file is None:
        return None
    return grpc.ssl_channel_credentials(config.tls_cert_file.read_bytes())


def listen(server: grpc.aio.Server, config: Grpc, address: str) -> str:
    """Binds the server to an address, with TLS if configured, and returns the address with the port that it has got.

    Raises ListenError.
    """
    try:
        if config.tls_cert_file is None or config.tls_key_file is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(config.tls_cert_file, config.tls_key_file))
    except (RuntimeError, OSError) as error:
        raise ListenError(
            f"cannot listen on {address}: {error}; does another process, or another sagad, do so?"
        ) from error
    return f"{address.rpartition(':')[0]}:{port}"


def _credentials(cert_file: Path, key_file: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(key_file.read_bytes(), cert_file.read_bytes())])


def _options(config: Grpc) -> list[tuple[str, int]]:
    return [
        # Or a second server on the same port would get a share of the calls, silently.
        ("grpc.so_reuseport", int(config.reuse_port)),
        # A request that is larger is refused by gRPC: RESOURCE_EXHAUSTED. Answers are bounded by what makes them.
        ("grpc.max_receive_message_length", config.max_message_bytes),
        # So many calls of a method may wait for the event loop: beyond that gRPC cancels some at random, and then all,
        # without a word. What takes them in refuses sooner, but a burst may come within one turn of the loop.
        ("grpc.server.max_pending_requests", _MANY_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
        # An old connection is told to go, so that clients spread over nodes anew. Its calls have the grace to end; what
        # is left is cut off, which a watch survives by resuming.
        ("grpc.max_connection_age_ms", _milliseconds(config.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(config.max_connection_age_grace)),
        # A client that has vanished without a word is found out, and its watches with it.
        ("grpc.keepalive_time_ms", _milliseconds(config.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _milliseconds(config.keepalive_timeout)),
        # Clients may ping too, also while they have no call; those that ping more often than this are told to go.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _SHORTEST_PING_INTERVAL_MS),
        # A watch may be silent for days: that is what pings are for.
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _milliseconds(seconds: float) -> int:
    return min(round(seconds * 1000), 2**31 - 1)
