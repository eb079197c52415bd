"""Sagas that want the same resources, on nodes that get SIGKILL, with a Redis that is killed, emptied and frozen."""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest
from redis.asyncio import Redis
from support.chaos.nodes import all_serve, running_nodes, serving
from support.definitions import definition, step
from support.postgres import database, new_folder
from support.processes import SagadProcess, free_port
from support.redis import OwnRedis
from support.shop import PATIENT

from sagad.v1.definition_pb2 import Definition
from sagad.v1.saga_pb2 import EVENT_CAUSE_LOCK_GRANTED, Saga, SagaState
from sagad_client import Client
from sagad_participant import Action, Compensation, MemoryBarrier, Participant, Refused, serve

STRIKES = int(os.environ.get("SAGAD_CHAOS_LOCK_STRIKES", "12"))
NODES = 3
LEASE_S = 2
CLIENTS = 24
ROOMS = 4
PLAINLY_LATER_S = 1.0
"""Two tickets that are so far apart were taken one after the other, whatever the clocks of backends say."""


class Effect(NamedTuple):
    """What was done at the participant."""

    saga_id: str
    what: str
    lock_tokens: dict[str, int]


class Rooms:
    """The participant. Its barrier lets each effect come once; what it notes is the order in which they come."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.participant = Participant("rooms", barrier=MemoryBarrier())
        self.participant.action("enter")(self._act)
        self.participant.action("leave")(self._act)
        self.participant.compensation("tidy")(self._act)

    async def _act(self, call: Action | Compensation) -> None:
        await asyncio.sleep(0.002)
        if isinstance(call, Action) and call.step_id == "leave" and call.json["fails"]:
            raise Refused("NOT_TODAY")
        effect = Effect(call.saga_id, f"{type(call).__name__} {call.step_id}", dict(call.lock_tokens))
        call.connection.after_commit(lambda: self.effects.append(effect))

    @asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[None]:
        task = asyncio.create_task(serve(self.participant, address))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def in_rooms() -> Definition:
    """Two steps under one or two locks."""
    quick = {"timeout": "5s", "maxRetries": 10, "retry": {"initialBackoff": "0.02s", "maxBackoff": "0.2s"}}
    enter = step("enter", participant="rooms", action="enter", compensation="tidy", **quick)
    leave = step("leave", participant="rooms", action="leave", compensation="tidy", **quick)
    return definition(enter, leave, locks=["'room/' + input.one", "'room/' + input.two"])


class Guests:
    """Clients that start one saga after the other, and remember what was acknowledged."""

    def __init__(self, client: Client, chance: random.Random) -> None:
        self.ids: list[str] = []
        self._client = client
        self._chance = chance
        self._open = True

    async def come(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(self._come(number))

    async def _come(self, number: int) -> None:
        count = 0
        while self._open:
            saga_id, count = f"g{number}-{count}", count + 1
            one, two = (str(self._chance.randrange(ROOMS)) for _ in range(2))
            given = {"one": one, "two": two, "fails": self._chance.random() < 0.3}
            await self._client.start("order", given, saga_id=saga_id)
            self.ids.append(saga_id)
            await self._client.wait(saga_id)

    def go(self) -> None:
        self._open = False


async def strike(nodes: list[SagadProcess], redis: OwnRedis, chance: random.Random) -> str:
    """One thing that goes wrong."""
    what = chance.choice(["node", "node", "kill redis", "empty redis", "freeze redis"])
    if what == "node":
        lucky = await serving(nodes)
        if len(lucky) < 2:
            return "none"
        victim = chance.choice(lucky)
        victim.kill()
        victim.start(wait=False)
    elif what == "empty redis":
        client = Redis.from_url(redis.url)
        await client.flushall()
        await client.aclose()
    elif what == "kill redis":
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(chance.uniform(0.0, 0.7))
        await asyncio.to_thread(redis.start)
    else:
        redis.freeze()
        await asyncio.sleep(chance.uniform(0.2, 0.7))
        redis.thaw()
    return what


def interleaved(effects: list[Effect]) -> list[str]:
    """What was done under a lock after another had it."""
    found, highest = [], dict[str, int]()
    for effect in effects:
        for name, token in effect.lock_tokens.items():
            if token < highest.setdefault(name, token):
                found.append(f"{effect} comes after token {highest[name]} of {name}")
            highest[name] = max(token, highest[name])
    return found


async def overtaken(client: Client, saga_ids: list[str]) -> list[str]:
    """Who was given a lock though another had waited for it plainly longer, and was not given it before."""
    waits: dict[str, list[tuple[datetime, datetime, str]]] = defaultdict(list)
    for saga_id in saga_ids:
        since: dict[str, datetime] = {}
        async for event in client.events(saga_id):
            time = event.time.ToDatetime()
            if event.cause == EVENT_CAUSE_LOCK_GRANTED:
                waits[event.granted_lock].append((since[event.granted_lock], time, saga_id))
            if event.waits_for_lock:
                since[event.waits_for_lock] = time
    found = []
    for name, those in waits.items():
        those.sort(key=lambda wait: wait[1])
        for place, (asked, _, saga_id) in enumerate(those):
            for later_asked, _, later in those[place + 1 :]:
                if (asked - later_asked).total_seconds() > PLAINLY_LATER_S:
                    found.append(f"{saga_id} had {name} before {later}, which had asked for it before")
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


@pytest.mark.timeout(1200)
async def test_a_lock_has_one_holder_is_never_lost_and_goes_round_fairly_whatever_dies(
    folder: Path, postgres_server_dsn: str, own_redis: OwnRedis, say: Callable[[str], None]
) -> None:
    seed = int(os.environ.get("SAGAD_CHAOS_SEED") or random.randrange(10**9))
    say(f"SAGAD_CHAOS_SEED={seed}, {STRIKES} strikes at nodes and Redis")
    chance, rooms = random.Random(seed), Rooms()
    ports, own_port = [free_port() for _ in range(NODES)], free_port()
    everywhere = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    participants, section = {"rooms": f"127.0.0.1:{own_port}"}, {"url": own_redis.url}
    with database(postgres_server_dsn) as dsn:
        async with (
            rooms.serving(f"127.0.0.1:{own_port}"),
            running_nodes(folder, dsn, participants, ports, lease_s=LEASE_S, redis=section) as nodes,
            Client(everywhere, backoff=PATIENT, timeout_s=120) as client,
        ):
            await client.definitions.create(in_rooms())
            guests = Guests(client, chance)
            coming = asyncio.create_task(guests.come())
            struck = []
            while len(struck) < STRIKES:
                await asyncio.sleep(chance.uniform(0.2, 1.0))
                struck.append(await strike(nodes, own_redis, chance))
            guests.go()
            await coming
            await all_serve(nodes)
            sagas: list[Saga] = await asyncio.gather(*(client.wait(one, timeout_s=60) for one in guests.ids))
            late = await overtaken(client, guests.ids)
            connection = await asyncpg.connect(dsn)
            left = await connection.fetch("SELECT * FROM sagad.lock")
            await connection.close()
    states = {SagaState.Name(saga.state) for saga in sagas}
    say(f"{len(sagas)} sagas under {ROOMS} locks, {len(rooms.effects)} effects; strikes: {', '.join(struck)}")
    assert states == {"SAGA_STATE_SUCCEEDED", "SAGA_STATE_COMPENSATED"}
    assert all(effect.lock_tokens for effect in rooms.effects)
    assert interleaved(rooms.effects) == []
    assert late == []
    assert left == []
    assert len(sagas) > 10 * STRIKES
