"""Who watches the health hears of it."""

import asyncio
from types import SimpleNamespace

from grpc_health.v1 import health_pb2

from sagad_server.api.health import Health
from sagad_server.api.server import SERVICES

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_everybody_who_watches_the_health_hears_of_changes_whoever_leaves() -> None:
    told: list[asyncio.Queue[health_pb2.HealthCheckResponse]] = [asyncio.Queue() for _ in range(3)]
    health = Health(SERVICES)
    request = health_pb2.HealthCheckRequest()
    watches = [asyncio.create_task(health.Watch(request, SimpleNamespace(write=queue.put))) for queue in told]
    assert [(await queue.get()).status for queue in told] == [NOT_SERVING] * 3
    watches[0].cancel()
    for serving, status in ((True, SERVING), (False, NOT_SERVING)):
        health.set_serving(serving)
        assert [(await queue.get()).status for queue in told[1:]] == [status] * 2
    for watch in watches:
        watch.cancel()
