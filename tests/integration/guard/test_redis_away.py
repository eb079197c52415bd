"""Nodes whose limits are in a Redis that is killed, emptied, replaced or frozen."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from support.redis import OwnRedis
from support.scripted_participant import ScriptedParticipant, scripted_participant
from support.server import PARTICIPANT, Refused, Server, chain, eventually, refused, rest, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import ComponentHealth, GetHealthDetailsRequest
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase

SUCCEEDED = saga_pb2.SAGA_STATE_SUCCEEDED
SLOW = {"per_second": 0.01, "burst": 4}


@pytest.fixture
async def participant() -> AsyncIterator[ScriptedParticipant]:
    async with scripted_participant() as participant:
        yield participant


@asynccontextmanager
async def nodes(redis: OwnRedis, participant: ScriptedParticipant, **rate_limits: Any) -> AsyncIterator[list[Server]]:
    """Two nodes of one sagad."""
    database, section = MemoryDatabase(), {"url": redis.url, "timeout": "1s"}  # a busy machine is not away
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(
                running_server(
                    MemoryStore(database), participant, node={"name": name}, redis=section, rate_limits=rate_limits
                )
            )
            for name in ("one", "two")
        ]
        await found[0].create(chain("reserve"))
        yield found


def kill(redis: OwnRedis) -> None:
    redis.kill()


def freeze(redis: OwnRedis) -> None:
    redis.freeze()


async def bring_back(redis: OwnRedis, lost_by: Callable[[OwnRedis], None]) -> None:
    await asyncio.to_thread(redis.start if lost_by is kill else redis.thaw)


def is_away(server: Server) -> bool:
    return server.metrics.registry.get_sample_value("sagad_redis_away") == 1


async def redis_health(server: Server) -> ComponentHealth:
    details = await server.admin.GetHealthDetails(GetHealthDetailsRequest())
    assert details.healthy
    (redis,) = (component for component in details.components if component.name == "redis")
    return redis  # type: ignore[no-any-return]


async def exhaust(servers: list[Server]) -> None:
    """By turns, up to the burst."""
    for number in range(SLOW["burst"]):  # type: ignore[call-overload]
        await servers[number % 2].start(saga_id=f"s{number}", wait=True)


async def started(server: Server, saga_id: str) -> None:
    """Starts a saga once that is not refused any more."""
    while True:
        try:
            await server.start(saga_id=saga_id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(0.01)
        else:
            return


async def refusals(servers: list[Server]) -> list[Refused]:
    return [await refused(server.start(saga_id="late")) for server in servers]


lost_both_ways = pytest.mark.parametrize("lost_by", [kill, freeze])


async def test_two_nodes_share_a_bucket(own_redis: OwnRedis, participant: ScriptedParticipant) -> None:
    async with nodes(own_redis, participant, clients={"default": SLOW}) as servers:
        await exhaust(servers)
        for refusal in await refusals(servers):
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
            assert 90 < (refusal.retry_after_s or 0) <= 100
        assert [(await redis_health(server)).healthy for server in servers] == [True, True]


@lost_both_ways
async def test_an_open_policy_limits_nothing_without_redis_and_the_same_again_with_it(
    own_redis: OwnRedis, participant: ScriptedParticipant, lost_by: Callable[[OwnRedis], None]
) -> None:
    async with nodes(own_redis, participant, definitions={"default": SLOW}) as servers:
        await exhaust(servers)
        lost_by(own_redis)
        with capture_logs() as logs:
            clock = asyncio.get_running_loop()
            one = servers[0]
            await started(one, "first")  # up to a lease later: until then it knows that there is no token
            began_s = clock.time()
            for number in range(20):
                assert (await one.start(saga_id=f"free{number}", wait=True)).state == SUCCEEDED
            assert clock.time() - began_s < 5
            assert is_away(one)
            health = await redis_health(one)
            assert not health.healthy
            assert health.message
            await bring_back(own_redis, lost_by)
            await eventually(lambda: not is_away(one))
        assert [log["event"] for log in logs if "Redis" in log["event"]] == ["Redis is away", "Redis is back"]
        assert (await refused(one.start(saga_id="late"))).reason == "RATE_LIMITED"
        assert (await redis_health(one)).healthy


@lost_both_ways
async def test_a_closed_policy_refuses_without_redis_and_goes_on_with_it(
    own_redis: OwnRedis, participant: ScriptedParticipant, lost_by: Callable[[OwnRedis], None]
) -> None:
    closed = {"when_redis_is_away": "closed", "definitions": {"default": {"per_second": 0.01, "burst": 20}}}
    async with nodes(own_redis, participant, **closed) as servers:
        one = servers[0]
        await one.start(saga_id="s0", wait=True)
        lost_by(own_redis)
        for _ in range(3):
            refusal = await refused(one.start(saga_id="late"))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "RATE_LIMITS_UNAVAILABLE")
            assert refusal.retry_after_s
        assert (await one.start(saga_id="s0", wait=True)).state == SUCCEEDED
        sagas = [pb.StartSagaRequest(saga_id=saga_id, definition_id="order", wait=True) for saga_id in ("a", "b")]
        stream = asyncio.create_task(rest(one.sagas.StartSagas(iter([pb.StartSagasRequest(sagas=sagas)]))))
        await eventually(lambda: len(one.app._sagas._starting) == 1)
        await bring_back(own_redis, lost_by)
        results = [result for message in await stream for result in message.results]
        assert {result.saga.state for result in results} == {SUCCEEDED}
        assert (await one.start(saga_id="late", wait=True)).state == SUCCEEDED


async def test_calls_wait_for_a_redis_that_is_away_where_the_policy_is_closed(
    own_redis: OwnRedis, participant: ScriptedParticipant
) -> None:
    rates = {"overrides": {PARTICIPANT: {"per_second": 1000, "burst": 1000}}}
    async with nodes(own_redis, participant, when_redis_is_away="closed", participants=rates) as servers:
        own_redis.kill()
        waiting = asyncio.create_task(servers[0].start(saga_id="s0", wait=True))
        await eventually(lambda: is_away(servers[0]))
        assert (await servers[0].get("s0")).steps[0].attempt == 1
        assert participant.calls == []
        await bring_back(own_redis, kill)
        saga = await waiting
        assert (saga.state, saga.steps[0].attempt) == (SUCCEEDED, 1)


async def test_a_redis_that_was_emptied_costs_one_burst_and_no_more(
    own_redis: OwnRedis, participant: ScriptedParticipant
) -> None:
    async with nodes(own_redis, participant, definitions={"default": SLOW}) as servers:
        await exhaust(servers)
        async with Redis.from_url(own_redis.url) as client:
            await client.flushall()
            await client.script_flush()
        for number in range(4):
            await started(servers[number % 2], f"more{number}")
        assert {refusal.reason for refusal in await refusals(servers)} == {"RATE_LIMITED"}
        assert not is_away(servers[0])


async def test_a_redis_that_takes_no_writes_is_away_until_it_does(
    own_redis: OwnRedis, participant: ScriptedParticipant
) -> None:
    async with (
        nodes(own_redis, participant, definitions={"default": SLOW}) as servers,
        Redis.from_url(own_redis.url) as client,
    ):
        one = servers[0]
        with capture_logs() as logs:
            await client.config_set("maxmemory", 1)
            for number in range(10):
                await started(one, f"free{number}")
            leases = one.app._guard._leases
            assert leases is not None
            probe_at_s = leases._probe_at_s
            await eventually(lambda: leases._probe_at_s > probe_at_s)  # it was probed, and will be again
            assert "OutOfMemoryError" in (await redis_health(one)).message
            await client.config_set("maxmemory", 0)
            await eventually(lambda: not is_away(one))
        assert [log["event"] for log in logs if "Redis" in log["event"]] == ["Redis is away", "Redis is back"]
