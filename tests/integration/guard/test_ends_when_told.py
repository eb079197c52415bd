"""What talks to Redis ends when it is cancelled, at whatever turn of the loop that comes: a node waits for that."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sagad_server.guard.bucket import Rate
from sagad_server.guard.leases import Ask
from sagad_server.guard.limit import Kind, Subject
from sagad_server.guard.lock_channel import LockChannel
from sagad_server.guard.redis import RedisBuckets, RedisSettings
from sagad_server.system import SystemClock, SystemRandom

TURNS = 150
"""By then both have done all that there is to do and wait."""


def channel(settings: RedisSettings) -> LockChannel:
    channel = LockChannel(settings, SystemClock(), SystemRandom(), lambda locks: None)
    channel.tell([("", "order/1")])
    return channel


class Asking:
    """Takes tokens, one round trip after the other."""

    def __init__(self, settings: RedisSettings) -> None:
        self._buckets = RedisBuckets(settings)

    async def run(self) -> None:
        ask = Ask(Subject(Kind.CLIENT, "ends", Rate(1000, 1000)), 1, 0, 0)
        while True:
            await self._buckets.lease([ask])

    async def close(self) -> None:
        await self._buckets.close()


async def _ends(work: Coroutine[Any, Any, None], turns: int) -> bool:
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=2)
    return bool(done) and task.cancelled()


@pytest.mark.parametrize("new", [channel, Asking])
async def test_a_cancelled_part_ends_at_every_turn(
    redis_url: str, new: Callable[[RedisSettings], LockChannel | Asking], tmp_path: Path
) -> None:
    settings = RedisSettings(url=redis_url, key_prefix=tmp_path.name, timeout_s=5)
    for turns in range(TURNS):
        part = new(settings)
        assert await _ends(part.run(), turns), f"cancelled at turn {turns}, it goes on"
        await part.close()
