"""Watches of sagas that other nodes drive: one read for all of them, and none misses anything."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

import pytest
from support.definitions import definition, step
from support.world import FaultyStore, World

from sagad.v1.saga_pb2 import Saga
from sagad.v1.saga_service_pb2 import WatchSagaResponse
from sagad_server.api.conversions import saga_message
from sagad_server.api.watch import Watch
from sagad_server.domain.errors import OutOfRange, Unavailable
from sagad_server.domain.inputs import Pending, Success
from sagad_server.storage.memory_database import MemoryDatabase
from sagad_server.storage.rows import Key
from sagad_server.storage.selection import SagaFilter

DONE = Success(None)
ORDER = definition(step("reserve", completionTimeout="50s"), step("charge"))


class CountedStore(FaultyStore):
    """Keeps when and for how many sagas it was asked, and fails where the test says."""

    def __init__(self, world: "Counted", database: MemoryDatabase) -> None:
        super().__init__(database)
        self._world = world
        self.asked: list[tuple[float, int]] = []
        self.away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def moved(self, seen: Mapping[Key, int]) -> dict[Key, int | None]:
        self.asked.append((self._world.clock.now_s, len(seen)))
        if self.away:
            raise Unavailable("the store is away")
        moved = await super().moved(seen)
        await self.may_answer.wait()
        return moved


class Counted(World):
    store: CountedStore

    def new_store(self) -> CountedStore:
        return CountedStore(self, self.database)

    def asked_in(self, seconds: float) -> list[int]:
        """For how many sagas, at each read of the last seconds."""
        return [count for at_s, count in self.store.asked if at_s > self.clock.now_s - seconds]


class Viewer:
    """A client that watches at a node, from a saga's snapshot or a revision on."""

    def __init__(self, world: World, saga_id: str = "a", after: int = 0) -> None:
        self.revisions: list[int] = []
        self.may_read = asyncio.Event()
        self.may_read.set()
        watch = Watch(world.engine, self._read, ("default", saga_id), self._send, full=False, heartbeat_s=3600)
        self._world = world
        self.task = asyncio.get_running_loop().create_task(watch.run(after))

    async def _read(self, key: Key, *, full: bool) -> Saga:
        await self.may_read.wait()
        return saga_message(await self._world.commands.get(key), full=full)

    async def _send(self, message: WatchSagaResponse) -> None:
        self.revisions.append(message.revision)


@pytest.fixture
async def owner() -> AsyncIterator[World]:
    """The node that drives the sagas."""
    world = World(ORDER)
    world.renews = True
    await world.boot()
    yield world
    await world.die()


@pytest.fixture
async def node(owner: World) -> AsyncIterator[Counted]:
    """The node at which they are watched."""
    world = Counted(name="n2", beside=owner)
    await world.boot()
    yield world
    await world.die()


async def viewers(node: World, *sagas: str) -> list[Viewer]:
    watching = [Viewer(node, saga) for saga in sagas]
    await node.settle()
    return watching


async def test_watches_that_idle_are_read_for_together_and_seldom(owner: World, node: Counted) -> None:
    sagas = [f"s{number}" for number in range(60)]
    for saga in sagas:
        await owner.start(saga)
    await viewers(node, *sagas, *sagas)
    await node.advance(30)
    assert len(node.asked_in(20)) in (9, 10, 11)
    assert set(node.asked_in(20)) == {60}


async def test_a_saga_that_moves_is_told_of_within_two_tenths_of_a_second_and_one_that_idled_within_two(
    owner: World, node: Counted
) -> None:
    await owner.start("a")
    (viewer,) = await viewers(node, "a")
    await node.advance(30)
    await owner.answer("a:reserve", DONE)
    for _ in range(20):
        if viewer.revisions == [1]:
            await node.advance(0.1)
    assert viewer.revisions == [1, 2]
    await owner.answer("a:charge", DONE)
    await node.advance(0.2)
    assert viewer.revisions == [1, 2, 3]
    await viewer.task


async def test_each_watch_of_a_saga_sees_every_transition_once_wherever_it_began(owner: World, node: Counted) -> None:
    await owner.start("a")
    early = [Viewer(node) for _ in range(3)]
    await node.advance(5)
    await owner.answer("a:reserve", DONE)
    late = [Viewer(node), Viewer(node, after=1), Viewer(node, after=2)]
    await node.advance(0.5)
    await owner.answer("a:charge", DONE)
    await node.advance(2)
    await asyncio.gather(*(viewer.task for viewer in (*early, *late)))
    assert [viewer.revisions for viewer in early] == [[1, 2, 3]] * 3
    assert [viewer.revisions for viewer in late] == [[2, 3], [2, 3], [3]]
    assert node.engine.watches.count == 0


async def test_what_the_last_owner_did_is_told_though_the_saga_comes_here_and_stands_still(
    owner: World, node: Counted
) -> None:
    await owner.start("a")
    (viewer,) = await viewers(node, "a")
    await owner.answer("a:reserve", Pending())
    assert await owner.engine.hand_back(1) == 1
    node.recovery.adopt([])
    await node.settle()
    assert ("default", "a") in node.engine.sagas
    await node.advance(0.5)
    assert viewer.revisions == [1, 2]


async def test_what_happens_after_a_saga_has_left_this_node_is_told(owner: World, node: Counted) -> None:
    await node.start("a")
    (viewer,) = await viewers(node, "a")
    await node.answer("a:reserve", Pending())
    assert await node.engine.hand_back(1) == 1
    owner.recovery.adopt([])
    await owner.settle()
    await owner.advance(51)  # the time for CompleteStep is over, and it is called again
    await owner.answer("a:reserve", DONE)
    await owner.answer("a:charge", DONE)
    await node.advance(2)
    await viewer.task
    assert viewer.revisions == [1, 2, 3, 4, 5]


async def test_sagas_that_this_node_drives_are_not_read_for(node: Counted) -> None:
    await node.start("a")
    (viewer,) = await viewers(node, "a")
    await node.advance(10)
    await node.answer("a:reserve", DONE)
    await node.answer("a:charge", DONE)
    await viewer.task
    assert viewer.revisions == [1, 2, 3]
    assert node.store.asked == []


async def test_nothing_is_read_while_nobody_watches(owner: World, node: Counted) -> None:
    await owner.start("a")
    (viewer,) = await viewers(node, "a")
    await node.advance(5)
    viewer.task.cancel()
    await node.advance(30)
    assert node.asked_in(29) == []
    await viewers(node, "a")
    await node.advance(1)
    assert node.asked_in(1)


async def test_a_store_that_is_away_ends_the_watches_that_need_it_and_no_others(owner: World, node: Counted) -> None:
    await owner.start("there")
    await node.start("here")
    there, here = await viewers(node, "there", "here")
    node.store.away = True
    await node.advance(1)
    assert not there.task.done(), "it may be back soon"
    await node.advance(9)
    with pytest.raises(Unavailable):
        await there.task
    await node.answer("here:reserve", DONE)
    assert here.revisions == [1, 2]
    node.store.away = False
    (again,) = await viewers(node, "there")
    await owner.answer("there:reserve", DONE)
    await node.advance(0.5)
    assert again.revisions == [1, 2]


@pytest.mark.parametrize("late", [False, True])
async def test_a_saga_that_is_started_while_its_watch_begins_is_not_taken_for_purged(
    owner: World, node: Counted, late: bool
) -> None:
    viewer = Viewer(node)
    viewer.may_read.clear()
    if late:
        node.store.may_answer.clear()
    await node.advance(1)
    assert node.asked_in(1)
    await owner.start("a")
    viewer.may_read.set()
    await node.settle()
    node.store.may_answer.set()
    await owner.answer("a:reserve", DONE)
    await owner.answer("a:charge", DONE)
    await node.advance(2)
    await viewer.task
    assert viewer.revisions[-1] == 3


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_saga_that_is_purged_before_its_end_was_told_ends_the_watch_with_that(
    owner: World, node: Counted, forgotten: bool
) -> None:
    await owner.start("a")
    (viewer,) = await viewers(node, "a")
    await owner.answer("a:reserve", DONE)
    await owner.answer("a:charge", DONE)
    assert (await owner.store.purge(None, SagaFilter(), timedelta(0), 1, dry_run=False)).count == 1
    if forgotten:
        assert await owner.store.forget(timedelta(0), 1) == 1
    await node.advance(2)
    with pytest.raises(OutOfRange) as refused:
        await viewer.task
    assert (refused.value.reason, viewer.revisions) == ("PURGED", [1])
