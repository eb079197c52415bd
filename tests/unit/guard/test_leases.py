"""Nodes that take tokens ahead from shared buckets, without Redis and on a clock of their own."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import count, pairwise
from typing import Any
from uuid import UUID

from support.buckets import Heard, MemoryBuckets, most_above

from sagad_server.guard.bucket import Rate
from sagad_server.guard.leases import Leases
from sagad_server.guard.limit import Kind, Subject
from sagad_server.guard.local import LocalLimit
from sagad_server.guard.rate_limits import MOST_KNOWN, Denied, RateLimits, Rates

ORDER = "default/order"


class TurnedClock:
    """Time goes on when everybody waits for it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def monotonic(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[[], None]) -> "TurnedClock":
        heapq.heappush(self._timers, (when, next(self._order), callback))
        return self

    def cancel(self) -> None: ...

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            over = asyncio.Event()
            self.call_at(self.now_s + seconds, over.set)
            await over.wait()

    async def run(self, until_s: float) -> None:
        while True:
            for _ in range(10):  # whoever can go on does
                await asyncio.sleep(0)
            if not self._timers or self._timers[0][0] > until_s:
                self.now_s = until_s
                return
            self.now_s, _, callback = heapq.heappop(self._timers)
            callback()


class Half:
    def random(self) -> float:
        return 0.5

    def uid(self) -> UUID:
        raise NotImplementedError


class Cluster:
    """Nodes that share buckets, and what each was told."""

    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.buckets = MemoryBuckets(self.clock)
        self.heard = Heard()
        self.admitted_s: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []

    def node(self, rate: Rate, *, open_when_away: bool = True, **overrides: Rate) -> RateLimits:
        leases = Leases(self.buckets, self.clock, Half(), self.heard, open_when_away=open_when_away)
        self.spawn(leases.run())
        rates = {Kind.DEFINITION: Rates(rate), Kind.CLIENT: Rates(overrides=overrides)}
        return RateLimits(rates, leases.new_limit, self.heard)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def start_often(self, node: RateLimits, pause_s: float) -> None:
        """Starts a saga, again and again."""
        while True:
            if await node.admit("somebody", ORDER) is None:
                self.admitted_s.append(self.clock.now_s)
            await self.clock.sleep(pause_s)

    async def asked(self, node: RateLimits, definition: str = ORDER) -> Denied | None:
        """What somebody who starts a saga now is told."""
        task = asyncio.get_running_loop().create_task(node.admit("somebody", definition))
        await self.run(0)
        return task.result()

    async def run(self, seconds: float) -> None:
        await self.clock.run(self.clock.now_s + seconds)


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    for task in made.tasks:
        task.cancel()
    results = await asyncio.gather(*made.tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def test_all_nodes_together_stay_within_the_rate_and_get_nearly_all_of_it() -> None:
    rate = Rate(100, 50)
    async with cluster() as world:
        for pause_s in (0.0011, 0.0037, 0.011, 0.5):
            world.spawn(world.start_often(world.node(rate), pause_s))
        await world.run(8)
        assert most_above(world.admitted_s, rate.per_second) <= rate.burst + 1e-6
        assert len(world.admitted_s) >= 0.95 * (50 + 100 * 8)


async def test_a_limit_that_is_not_reached_refuses_nobody_and_is_asked_for_some_times_a_second() -> None:
    async with cluster() as world:
        node = world.node(Rate(10_000, 10_000))
        world.spawn(world.start_often(node, 0.001))
        await world.run(5)
        assert len(world.admitted_s) >= 4_950
        assert world.heard.leases <= 100


async def test_below_the_rate_nobody_is_refused_though_every_node_takes_tokens_ahead() -> None:
    async with cluster() as world:
        nodes = [world.node(Rate(100, 20)) for _ in range(3)]
        for node in nodes:
            world.spawn(world.start_often(node, 1 / 30))
        await world.run(10)
        assert len(world.admitted_s) >= 3 * 30 * 10 - 3


async def test_an_exhausted_limit_says_when_there_is_a_token_and_one_is_there_then() -> None:
    async with cluster() as world:
        node = world.node(Rate(2, 1))
        assert await world.asked(node) is None
        denied = await world.asked(node)
        assert denied is not None
        assert denied.subject == Subject(Kind.DEFINITION, ORDER, Rate(2, 1))
        assert 0.5 <= denied.later.pause_s < 0.50001
        await world.run(denied.later.pause_s)
        assert await world.asked(node) is None


async def test_those_who_are_refused_together_are_told_one_after_the_other() -> None:
    async with cluster() as world:
        node = world.node(Rate(10, 2))
        told = await asyncio.gather(world.asked(node), world.asked(node), world.asked(node), world.asked(node))
        pauses = [0.0 if one is None else round(one.later.pause_s, 3) for one in told]
        assert pauses == [0, 0, 0.1, 0.2]


async def test_an_exhausted_limit_is_not_asked_for_each_time() -> None:
    async with cluster() as world:
        world.spawn(world.start_often(world.node(Rate(1000, 1000)), 0.0002))
        await world.run(0.2)
        before = world.heard.leases
        await world.run(1)
        assert most_above(world.admitted_s, 1000) <= 1000 + 1e-6
        assert world.heard.leases - before <= 110


async def test_who_is_refused_by_one_limit_uses_none_of_the_other() -> None:
    async with cluster() as world:
        node = world.node(Rate(0.1, 1), somebody=Rate(0.1, 3), other=Rate(0.1, 3))
        assert await world.asked(node) is None
        for _ in range(5):
            denied = await world.asked(node)
            assert denied is not None
            assert denied.subject.kind is Kind.DEFINITION
        assert await world.asked(node, definition="default/other") is None
        assert await world.asked(node, definition="default/third") is None
        denied = await world.asked(node, definition="default/fourth")
        assert denied is not None
        assert (denied.subject.kind, denied.subject.name) == (Kind.CLIENT, "somebody")


async def test_while_redis_is_away_an_open_policy_lets_all_through_without_asking() -> None:
    async with cluster() as world:
        node = world.node(Rate(1, 1), open_when_away=True)
        world.buckets.away = True
        for _ in range(50):
            assert await world.asked(node) is None
        assert world.heard.states == [True]
        world.buckets.away = False
        await world.run(5)
        assert world.heard.states == [True, False]
        assert await world.asked(node) is None
        assert await world.asked(node) is not None


async def test_while_redis_is_away_a_closed_policy_refuses_without_asking() -> None:
    async with cluster() as world:
        node = world.node(Rate(1, 1), open_when_away=False)
        world.buckets.away = True
        for _ in range(50):
            denied = await world.asked(node)
            assert denied is not None
            assert denied.later.away
            assert 0 < denied.later.pause_s <= 0.5
        assert world.heard.states == [True]
        world.buckets.away = False
        await world.run(5)
        assert await world.asked(node) is None


async def test_redis_is_probed_less_and_less_often_while_it_is_away() -> None:
    async with cluster() as world:
        probes = []
        node = world.node(Rate(1, 1))
        ping = world.buckets.ping

        async def counted() -> None:
            probes.append(world.clock.now_s)
            await ping()

        world.buckets.ping = counted  # type: ignore[method-assign]
        world.buckets.away = True
        await world.asked(node)
        await world.run(60)
        pauses = [later - earlier for earlier, later in pairwise(probes)]
        assert 10 <= len(probes) <= 25
        assert pauses == sorted(pauses)
        assert max(pauses) <= 5


async def test_names_beyond_bounds_are_forgotten_and_not_kept_for_ever() -> None:
    clock = TurnedClock()
    made: list[str] = []

    def new_limit(subject: Subject) -> LocalLimit:
        made.append(subject.name)
        return LocalLimit(subject, clock)

    limits = RateLimits({Kind.CLIENT: Rates(Rate(1, 1))}, new_limit, Heard())
    for number in range(MOST_KNOWN + 1):
        limits.limit(Kind.CLIENT, str(number))
        limits.limit(Kind.CLIENT, "busy")
    limits.limit(Kind.CLIENT, "busy")
    assert made.count("busy") == 1
    limits.limit(Kind.CLIENT, "0")
    assert made.count("0") == 2
