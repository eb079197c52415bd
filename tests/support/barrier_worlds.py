"""The barriers with effects that can be counted, and requests to send through them."""

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol

import asyncpg
from redis.asyncio import Redis

from sagad.v1 import common_pb2
from sagad.v1 import participant_service_pb2 as pb
from sagad_participant import Barrier, MemoryBarrier, MemoryConnection
from sagad_participant.payloads import payload_of
from sagad_participant.postgres import PostgresBarrier
from sagad_participant.redis import RedisBarrier, RedisConnection

WAIT_S = 1.0


class World(Protocol):
    """A barrier, and effects that are committed with its transactions."""

    barrier: Barrier

    async def effect(self, connection: Any, text: str) -> None: ...

    async def effects(self) -> list[str]: ...

    async def until_a_call_waits(self) -> None:
        """Returns when a call waits for another one with the same key."""


@dataclass
class MemoryWorld:
    barrier: MemoryBarrier = field(default_factory=lambda: MemoryBarrier(wait_s=WAIT_S))
    done: list[str] = field(default_factory=list)

    async def effect(self, connection: MemoryConnection, text: str) -> None:
        connection.after_commit(lambda: self.done.append(text))

    async def effects(self) -> list[str]:
        return list(self.done)

    async def until_a_call_waits(self) -> None:
        for _ in range(10):  # steps of the loop: there is nothing else to wait for on the way to the lock
            await asyncio.sleep(0)


@dataclass
class PostgresWorld:
    pool: "asyncpg.Pool[asyncpg.Record]"
    barrier: PostgresBarrier

    @classmethod
    async def create(cls, pool: "asyncpg.Pool[asyncpg.Record]") -> "PostgresWorld":
        await pool.execute("CREATE TABLE effect (position bigserial PRIMARY KEY, text text NOT NULL)")
        barrier = PostgresBarrier(pool, wait_s=WAIT_S)
        await barrier.create()
        return cls(pool, barrier)

    async def effect(self, connection: Any, text: str) -> None:
        await connection.execute("INSERT INTO effect (text) VALUES ($1)", text)

    async def effects(self) -> list[str]:
        return [row["text"] for row in await self.pool.fetch("SELECT text FROM effect ORDER BY position")]

    async def until_a_call_waits(self) -> None:
        async with asyncio.timeout(10):
            while not await self.pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@dataclass
class RedisWorld:
    client: Redis
    name: str
    barrier: RedisBarrier

    @classmethod
    def create(cls, client: Redis, **settings: Any) -> "RedisWorld":
        name = f"test-{uuid.uuid4()}"
        return cls(client, name, RedisBarrier(client, name, **{"wait_s": WAIT_S, **settings}))

    @property
    def _effects(self) -> str:
        return f"{{sagad:{self.name}}}:effects"

    async def effect(self, connection: RedisConnection, text: str) -> None:
        connection.queue("RPUSH", self._effects, text)

    async def effects(self) -> list[str]:
        return [text.decode() for text in await self.client.lrange(self._effects, 0, -1)]

    async def until_a_call_waits(self) -> None:
        """Nothing else runs scripts meanwhile: after two more, one has been told to wait."""
        before = await self._scripts_run()
        async with asyncio.timeout(10):
            while await self._scripts_run() < before + 2:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.005)

    async def _scripts_run(self) -> int:
        statistics = await self.client.info("commandstats")
        return int(statistics["cmdstat_evalsha"]["calls"])

    async def delete(self) -> None:
        async for key in self.client.scan_iter(f"{{sagad:{self.name}}}:*"):
            await self.client.delete(key)


def step(action: str = "act", *, key: str | None = None, token: int = 1, **fields: Any) -> pb.StepRequest:
    """A call of an action; with a fresh key unless there is one."""
    return pb.StepRequest(
        namespace="default",
        saga_id="saga-1",
        definition_id="order",
        version="1.0.0",
        step_id="the_step",
        action=action,
        idempotency_key=key or f"{uuid.uuid4()}/the_step/1",
        attempt=1,
        fencing_token=token,
        completion_token="token-1",
        input=payload_of({"order_id": "o-1"}),
        **fields,
    )


def undo(
    of: pb.StepRequest, compensation: str = "undo", *, token: int | None = None, **fields: Any
) -> pb.CompensateRequest:
    """The call of the compensation of an action."""
    return pb.CompensateRequest(
        namespace=of.namespace,
        saga_id=of.saga_id,
        definition_id=of.definition_id,
        version=of.version,
        step_id=of.step_id,
        action=of.action,
        compensation=compensation,
        idempotency_key=of.idempotency_key,
        attempt=1,
        fencing_token=token or of.fencing_token,
        completion_token="token-2",
        input=of.input,
        outcome=fields.pop("outcome", pb.ACTION_OUTCOME_UNKNOWN),
        cause=common_pb2.Failure(category=common_pb2.FAILURE_CATEGORY_BUSINESS, reason="NO_STOCK", step_id="other"),
        **fields,
    )
