"""Tells the other nodes which locks have passed on, by a channel of Redis (or Valkey).

It carries hints and nothing else: who holds a lock is a row in PostgreSQL, and every node looks at those by itself now
and then. A message that is lost, doubled or made up costs a look, so nothing here is ever sent twice.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import structlog
from redis.exceptions import RedisError

from sagad_server.engine.ports import Clock, Random
from sagad_server.guard.redis import RedisSettings, connect
from sagad_server.storage.locks import LockId

_SILENCE_S = 5.0
"""After which Redis is asked for a sign of life, and given up if it gives none in as much time."""
_MOST_WAITING = 10_000
_MOST_AT_ONCE = 100
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0

log = structlog.get_logger(__name__)


class LockChannel:
    """One for each node. `heard` is told of every lock that a node, maybe this one, has told of."""

    def __init__(
        self, settings: RedisSettings, clock: Clock, random: Random, heard: Callable[[Iterable[LockId]], None]
    ) -> None:
        self._redis: Any = connect(settings)
        self._name = f"{settings.key_prefix}:locks"
        self._timeout_s = settings.timeout_s
        self._clock = clock
        self._random = random
        self._heard = heard
        self._locks: deque[LockId] = deque(maxlen=_MOST_WAITING)
        self._told = asyncio.Event()
        self.listens = False
        """Whether messages come."""

    def tell(self, locks: Sequence[LockId]) -> None:
        """These have passed to sagas of other nodes. Returns at once."""
        self._locks.extend(locks)
        self._told.set()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._while_away(self._listen))
            tasks.create_task(self._while_away(self._speak))

    async def close(self) -> None:
        await self._redis.aclose()

    async def _while_away(self, work: Callable[[], Any]) -> None:
        """Begins anew whenever Redis goes away, after a pause."""
        pause_s = _FIRST_PAUSE_S
        while True:
            began_s = self._clock.monotonic()
            try:
                await work()
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("no channel for locks", error=str(error) or type(error).__name__)
                with suppress(RedisError, OSError):  # what is left half open
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
            finally:
                self.listens = self.listens and work != self._listen
            if self._clock.monotonic() - began_s > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            await self._clock.sleep(pause_s * (0.5 + self._random.random() / 2))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as channel:
            async with asyncio.timeout(self._timeout_s):
                await channel.subscribe(self._name)
            asked = False
            while True:
                async with asyncio.timeout(_SILENCE_S + self._timeout_s):  # it may connect anew, without a bound
                    message = await channel.get_message(timeout=_SILENCE_S)
                if message is not None:
                    asked, self.listens = False, True
                    if message["type"] == "message":
                        self._heard(_read(message["data"]))
                elif asked:
                    raise TimeoutError(f"no sign of life within {_SILENCE_S:g} s")
                else:
                    asked = True
                    async with asyncio.timeout(self._timeout_s):
                        await channel.ping()

    async def _speak(self) -> None:
        while True:
            self._told.clear()
            if not self._locks:
                await self._told.wait()
            while self._locks:
                told = [self._locks.popleft() for _ in range(min(len(self._locks), _MOST_AT_ONCE))]
                async with asyncio.timeout(self._timeout_s):
                    await self._redis.publish(self._name, json.dumps(told))


def _read(data: bytes) -> list[LockId]:
    """What others may have written there: anything that names no locks names none."""
    try:
        return [(namespace, name) for namespace, name in json.loads(data) if isinstance(namespace + name, str)]
    except (ValueError, TypeError):
        return []
