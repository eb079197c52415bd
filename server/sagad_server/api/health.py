"""grpc.health.v1 for the server as a whole and for each of its services, which serve or do not serve together."""

import asyncio
from collections.abc import Collection

from grpc_health.v1 import health_pb2, health_pb2_grpc

from sagad_server.api.interceptor import Context
from sagad_server.domain.errors import NotFound

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # the library has no types
    """NOT_SERVING until `set_serving(True)`."""

    def __init__(self, services: Collection[str]) -> None:
        self._services = {"", *services}
        self._serving = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Tells everybody who watches."""
        if serving != self._serving:
            self._serving = serving
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            raise NotFound(f"there is no service {request.service[:100]!r} here", reason="SERVICE_NOT_FOUND")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """The status now, and each time that it changes; what changes back meanwhile may be missed."""
        seen = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != seen:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                seen = status
            await changed.wait()

    def _status(self, service: str) -> int:
        if service not in self._services:
            unknown: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            return unknown
        serving: int = health_pb2.HealthCheckResponse.SERVING
        not_serving: int = health_pb2.HealthCheckResponse.NOT_SERVING
        return serving if self._serving else not_serving
