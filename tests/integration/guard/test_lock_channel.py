"""Locks that pass from a saga of one node to a saga of another, with and without a Redis that tells of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from support.proxy import Proxy
from support.redis import OwnRedis
from support.scripted_participant import Held, ScriptedParticipant, scripted_participant
from support.server import Server, chain, eventually, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad_server.engine import locks
from sagad_server.guard import lock_channel
from sagad_server.guard.lock_channel import LockChannel
from sagad_server.guard.redis import RedisSettings
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase
from sagad_server.system import SystemClock, SystemRandom

NEVER_S = 3600.0


@pytest.fixture
async def participant() -> AsyncIterator[ScriptedParticipant]:
    async with scripted_participant() as participant:
        yield participant


@asynccontextmanager
async def nodes(redis: OwnRedis, participant: ScriptedParticipant) -> AsyncIterator[list[Server]]:
    """Two nodes of one sagad, which hear of each other by Redis."""
    database, section = MemoryDatabase(), {"url": redis.url, "timeout": "1s"}
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                running_server(MemoryStore(database), participant, node={"name": name}, redis=section)
            )
            for name in ("one", "two")
        ]
        await servers[0].create(chain("reserve", locks=["'order/' + input.order"]))
        yield servers


async def listening(*servers: Server) -> None:
    for server in servers:
        channel = server.app._guard._channel
        assert channel is not None
        await eventually(lambda: channel.listens)  # noqa: B023 - it is awaited here


async def one_waits_for_the_other(servers: list[Server]) -> tuple[Held, "asyncio.Future[Any]"]:
    one, two = servers
    held = one.participant.hold("do_reserve")
    await one.start(saga_id="a", input={"order": "1"})
    await one.participant.called("do_reserve")
    waiting = asyncio.ensure_future(two.start(saga_id="b", input={"order": "1"}, wait=True))
    await eventually(lambda: two.engine.locks.waiting == 1)
    return held, waiting


async def test_who_waits_on_another_node_is_told_by_redis(
    own_redis: OwnRedis, participant: ScriptedParticipant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LOOK_EVERY_S", NEVER_S)
    async with nodes(own_redis, participant) as servers:
        await listening(*servers)
        held, waiting = await one_waits_for_the_other(servers)
        held.release()
        assert (await waiting).state == saga_pb2.SAGA_STATE_SUCCEEDED


@pytest.mark.parametrize("trouble", ["kill", "freeze", "empty"])
async def test_without_redis_or_its_data_locks_pass_on_all_the_same(
    own_redis: OwnRedis, participant: ScriptedParticipant, trouble: str
) -> None:
    async with nodes(own_redis, participant) as servers:
        await listening(*servers)
        held, waiting = await one_waits_for_the_other(servers)
        if trouble == "empty":
            client = Redis.from_url(own_redis.url)
            await client.flushall()
            await client.aclose()
        else:
            await asyncio.to_thread(getattr(own_redis, trouble))
        held.release()
        answer = await waiting
        if trouble == "freeze":
            own_redis.thaw()
    assert answer.state == saga_pb2.SAGA_STATE_SUCCEEDED


async def test_a_node_looks_seldom_only_while_redis_tells_it_and_a_redis_that_is_back_tells_again(
    own_redis: OwnRedis, participant: ScriptedParticipant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(own_redis, participant) as servers:
        await listening(*servers)
        assert all(server.engine.locks.told() for server in servers)  # they look seldom
        await asyncio.to_thread(own_redis.kill)
        for server in servers:
            await eventually(lambda: not server.engine.locks.told())  # noqa: B023
        await asyncio.to_thread(own_redis.start)
        await listening(*servers)
        monkeypatch.setattr(locks, "_LOOK_EVERY_S", NEVER_S)
        held, waiting = await one_waits_for_the_other(servers)
        held.release()
        assert (await waiting).state == saga_pb2.SAGA_STATE_SUCCEEDED


async def test_a_redis_that_takes_connections_and_says_nothing_is_given_up_and_heard_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_channel, "_SILENCE_S", 0.3)
    port = urlsplit(redis_url).port
    assert port is not None
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
    async with silent, Proxy(port).running() as proxy:
        settings = RedisSettings(url=f"redis://127.0.0.1:{proxy.port}", key_prefix="silent", timeout_s=1)
        channel = LockChannel(settings, SystemClock(), SystemRandom(), lambda locks: None)
        running = asyncio.create_task(channel.run())
        await eventually(lambda: channel.listens)
        proxy.target_port = silent.sockets[0].getsockname()[1]
        proxy.cut()
        await eventually(lambda: not channel.listens)
        proxy.target_port = port
        proxy.cut()
        await eventually(lambda: channel.listens)
        running.cancel()
        await asyncio.wait([running])
        await channel.close()
        assert held, "it has connected anew, in vain"
        for writer in held:
            writer.close()
            with suppress(OSError):  # the proxy may have broken it
                await writer.wait_closed()


async def test_what_is_no_message_of_sagad_stops_nothing(own_redis: OwnRedis, participant: ScriptedParticipant) -> None:
    async with nodes(own_redis, participant) as servers:
        await listening(*servers)
        client = Redis.from_url(own_redis.url)
        for nonsense in (b"", b"\xff", b"[[1, 2]]", b"[7]", b"{}", b'[["default"]]', b'[["default", "none"]]'):
            await client.publish("sagad:locks", nonsense)
        await client.aclose()
        held, waiting = await one_waits_for_the_other(servers)
        held.release()
        await waiting
        assert await servers[1].sagas.GetSaga(pb.GetSagaRequest(saga_id="b"))
