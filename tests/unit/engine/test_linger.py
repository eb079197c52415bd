"""Where many transitions come, the writer gathers for a few milliseconds; else it never waits."""

import asyncio
import contextlib

from support.definitions import definition, step
from support.world import World

ORDER = definition(step("one"))
LINGER_S = 0.004


class Rate:
    """So many starts, one after the other, at a pace; the commits that they make take no time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0

    async def start(self, number: int, each_s: float) -> None:
        for _ in range(number):
            self.world.starting(f"s{self.count}")
            self.count += 1
            await self.world.advance(each_s)


async def booted() -> World:
    world = World(ORDER)
    await world.boot()
    world.observer.batches.clear()
    return world


async def test_what_comes_alone_is_committed_at_once() -> None:
    world = await booted()
    for number in range(20):
        await world.start(f"s{number}")  # without any time
    assert world.observer.batches == [1] * 20


async def test_a_thousand_a_second_are_committed_each_at_once() -> None:
    world = await booted()
    await Rate(world).start(50, 0.001)
    assert world.observer.batches == [1] * 50


async def test_ten_thousand_a_second_are_gathered_for_no_longer_than_a_linger() -> None:
    world = await booted()
    await Rate(world).start(400, 0.0001)
    await world.advance(LINGER_S)
    assert sum(world.observer.batches) == 400
    assert max(world.observer.batches) in range(30, 45), "those of 4 ms"
    assert len(world.observer.batches) < 30


async def test_gathering_ends_when_less_comes() -> None:
    world = await booted()
    rate = Rate(world)
    await rate.start(200, 0.0001)
    await rate.start(3, 0.02)
    before = len(world.observer.batches)
    task = world.starting("last")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), 0.5)  # of real time; the world's own stands still
    assert task.done()
    assert len(world.observer.batches) == before + 1


async def test_plenty_is_committed_without_a_linger() -> None:
    world = await booted()
    await Rate(world).start(200, 0.0001)
    world.store.gate.clear()
    tasks = [world.starting(f"many{number}") for number in range(100)]
    await world.advance(LINGER_S)  # one more is taken, and waits at the gate
    tasks += [world.starting(f"more{number}") for number in range(100)]
    await world.settle()
    at_s = world.clock.now_s
    world.store.gate.set()
    await world.settle(200)
    assert all(task.done() for task in tasks)
    assert world.clock.now_s == at_s
