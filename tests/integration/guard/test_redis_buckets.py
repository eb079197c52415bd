"""Buckets in a real Redis: they do what the arithmetic says, and hold for all who take from them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest_asyncio
from redis.asyncio import Redis
from support.buckets import Heard

from sagad_server.guard.bucket import Bucket, Rate
from sagad_server.guard.leases import Ask, Leases
from sagad_server.guard.limit import Kind, Subject
from sagad_server.guard.rate_limits import RateLimits, Rates
from sagad_server.guard.redis import RedisBuckets, RedisSettings
from sagad_server.system import SystemClock, SystemRandom


@pytest_asyncio.fixture
async def settings(redis_url: str) -> AsyncIterator[RedisSettings]:
    prefix = f"test-{uuid4().hex}"
    yield RedisSettings(url=redis_url, key_prefix=prefix, timeout_s=5)
    async with Redis.from_url(redis_url) as client:
        async for key in client.scan_iter(f"{{{prefix}}}:*"):
            await client.delete(key)


@pytest_asyncio.fixture
async def buckets(settings: RedisSettings) -> AsyncIterator[RedisBuckets]:
    buckets = RedisBuckets(settings)
    yield buckets
    await buckets.close()


async def test_the_script_does_what_the_bucket_does(
    settings: RedisSettings, redis_url: str, buckets: RedisBuckets
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    rates = [Rate(0.5, 1), Rate(100, 5), Rate(333.3, 50), Rate(5000, 100), Rate(1_000_000, 1_000_000)]
    subjects = [Subject(Kind.CLIENT, f"c{number}", rate) for number, rate in enumerate(rates)]
    models: dict[Subject, Bucket] = {}
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        for _ in range(150):
            asks = [
                Ask(one, chance.randrange(4), chance.randrange(20), chance.randrange(3))
                for one in chance.sample(subjects, 3)
            ]
            for ask, grant in zip(asks, await buckets.lease(asks), strict=True):
                key = f"{{{settings.key_prefix}}}:rate:client:{ask.subject.name}"
                level, held, at_us = await client.hmget(key, "level", "held", "at_us")
                model = models.setdefault(ask.subject, Bucket(ask.subject.rate, int(at_us)))
                assert grant == model.lease(int(at_us), ask.need, ask.ahead, ask.returned)
                assert (float(level), int(held)) == model.state
            await asyncio.sleep(chance.choice([0, 0, 0.003, 0.02]))


async def test_a_bucket_expires_once_it_is_full(settings: RedisSettings, redis_url: str, buckets: RedisBuckets) -> None:
    await buckets.lease([Ask(Subject(Kind.PARTICIPANT, "slow", Rate(0.1, 10)), 10, 0, 0)])
    async with Redis.from_url(redis_url) as client:
        left_ms = await client.pttl(f"{{{settings.key_prefix}}}:rate:participant:slow")
    assert 100_000 < left_ms <= 101_000


async def test_nodes_that_start_as_fast_as_they_can_stay_within_the_rate_together(settings: RedisSettings) -> None:
    rate, clock, heard = Rate(500, 100), SystemClock(), Heard()
    admitted = [0, 0, 0]
    end_s = time.monotonic() + 1.5

    async def start_often(node: RateLimits, number: int) -> None:
        while time.monotonic() < end_s:
            denied = await node.admit("somebody", "default/order")
            if denied is None:
                admitted[number] += 1
            await asyncio.sleep(0 if denied is None else denied.later.pause_s)

    all_buckets = [RedisBuckets(settings) for _ in admitted]
    began_s = time.monotonic()
    nodes, running = [], []
    for buckets in all_buckets:
        leases = Leases(buckets, clock, SystemRandom(), heard, open_when_away=False)
        running.append(asyncio.create_task(leases.run()))
        nodes.append(RateLimits({Kind.DEFINITION: Rates(rate)}, leases.new_limit, heard))
    await asyncio.gather(*(start_often(node, number) for number, node in enumerate(nodes) for _ in range(4)))
    elapsed_s = time.monotonic() - began_s
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await asyncio.gather(*(buckets.close() for buckets in all_buckets))
    assert sum(admitted) <= rate.burst + rate.per_second * elapsed_s
    assert sum(admitted) >= 0.7 * (rate.burst + rate.per_second * elapsed_s)
    assert min(admitted) > 0
    assert heard.states == []
