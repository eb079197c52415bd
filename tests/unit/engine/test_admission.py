"""A node that cannot keep up takes on no new sagas, and goes on with those that it has."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.definitions import definition, step
from support.world import World

from sagad_server.domain.errors import ResourceExhausted
from sagad_server.domain.inputs import Pending, Success
from sagad_server.domain.states import SagaState
from sagad_server.engine.admission import arrival
from sagad_server.engine.settings import Settings
from sagad_server.storage.writes import Batch, Committed

DONE = Success(None)
ORDER = definition(step("reserve", completionTimeout="3600s"), step("charge"))
LATE_S = 0.25
BATCH = 4


class Slow:
    """A database that commits when the test says."""

    def __init__(self, world: World) -> None:
        self._commit = world.store.commit
        self._may = asyncio.Semaphore(0)
        self._world = world
        world.store.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, batch: Batch) -> Committed:
        await self._may.acquire()
        return await self._commit(batch)

    async def commits_after(self, seconds: float) -> None:
        await self._world.advance(seconds)
        self._may.release()
        await self._world.settle()

    async def recovers(self) -> None:
        for _ in range(1000):
            self._may.release()
        await self._world.settle()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(ORDER, settings=Settings(max_batch=BATCH, overload_after_ms=round(LATE_S * 1000)))
    await world.boot()
    yield world
    await world.die()


async def refusal(world: World, saga_id: str) -> ResourceExhausted:
    task = world.starting(saga_id)
    await world.settle()
    assert task.done(), "it was not refused"
    with pytest.raises(ResourceExhausted) as caught:
        await task
    return caught.value


async def begun(world: World, count: int) -> "list[asyncio.Task[object]]":
    tasks: list[asyncio.Task[object]] = [world.starting(f"s{number}") for number in range(count)]
    await world.settle()
    return tasks


async def test_starts_are_refused_once_no_commit_is_quick_and_taken_again_when_they_are(world: World) -> None:
    slow = Slow(world)
    tasks = await begun(world, 5 * BATCH)
    for _ in range(3):
        await slow.commits_after(LATE_S * 0.9)
    error = await refusal(world, "late")
    assert error.reason == "OVERLOADED"
    assert error.retry_after_ms == 1500, "between one and two seconds, by chance"
    assert ("default", "late") not in world.engine.sagas
    await slow.recovers()
    await asyncio.gather(*tasks)
    await world.start("late")


async def test_a_store_that_hangs_refuses_starts_before_it_has_answered(world: World) -> None:
    Slow(world)
    tasks = await begun(world, BATCH)
    await world.advance(LATE_S * 1.1)
    assert (await refusal(world, "late")).reason == "OVERLOADED"
    for task in tasks:
        task.cancel()


async def test_one_slow_commit_refuses_nothing(world: World) -> None:
    for number in range(2 * BATCH):
        await world.start(f"old{number}")
    slow = Slow(world)
    await begun(world, 1)
    await slow.commits_after(LATE_S * 0.9)
    waiting = world.starting("another")
    await slow.recovers()
    await waiting


async def test_less_than_half_a_batch_of_starts_is_no_overload_however_slow_the_store(world: World) -> None:
    slow = Slow(world)
    tasks = await begun(world, BATCH // 2 - 1)
    await world.advance(10 * LATE_S)
    tasks.append(world.starting("another"))  # type: ignore[arg-type]
    await slow.recovers()
    await asyncio.gather(*tasks)


async def test_sagas_that_wait_for_a_participant_are_no_overload(world: World) -> None:
    for number in range(10 * BATCH):
        await world.start(f"s{number}")
    await world.advance(60)
    assert len(world.transport.calls) == 10 * BATCH
    call = world.transport.take("s0:reserve")
    call.on_outcome(call, DONE)
    another = world.starting("another")  # in the same moment
    await world.settle()
    await another


async def test_what_is_under_way_is_not_refused(world: World) -> None:
    call = (await world.start("old") and await world.answer("old:reserve", Pending())).request
    for number in range(BATCH):
        await world.start(f"held{number}")
    slow = Slow(world)
    tasks = await begun(world, BATCH)
    await world.advance(LATE_S * 1.1)
    await refusal(world, "late")
    key = ("default", "old")
    completing = asyncio.ensure_future(
        world.commands.complete(key, "reserve", call.completion_token, DONE, actor="worker")
    )
    compensating = asyncio.ensure_future(world.commands.compensate(("default", "held0"), reason="why", actor="me"))
    repeating = world.starting("s0")
    await slow.recovers()
    await asyncio.gather(completing, compensating, repeating, *tasks)
    assert (await world.saga("held0")).state is SagaState.COMPENSATING


async def test_in_overload_as_many_starts_are_let_in_as_become_durable(world: World) -> None:
    slow = Slow(world)
    tasks = await begun(world, 2 * BATCH)
    await world.advance(LATE_S * 1.1)
    await refusal(world, "late")
    await slow.commits_after(0)  # the first batch
    assert world.engine.admission.arriving == BATCH
    await refusal(world, "as late")
    await slow.commits_after(0)
    assert world.engine.admission.arriving == 0
    tasks.extend(await begun(world, 1))
    await slow.recovers()
    await asyncio.gather(*tasks)


async def test_repeats_of_what_is_durable_say_nothing_of_the_others(world: World) -> None:
    await world.start("old")
    slow = Slow(world)
    tasks = await begun(world, BATCH)
    for _ in range(3):
        await world.advance(LATE_S / 2)
        await world.start("old")  # from memory, at once
    await refusal(world, "late")
    await slow.recovers()
    await asyncio.gather(*tasks)


async def test_in_overload_one_start_is_let_in_now_and_then_and_opens_the_node_if_it_is_in_time(world: World) -> None:
    admission = world.engine.admission
    for _ in range(BATCH):
        admission.enter()  # and is never read: its client sends no message
    await world.advance(LATE_S * 1.1)
    refused = 0
    while admission.overload() is not None:
        refused += 1
        await world.advance(LATE_S / 10)
    assert refused == 11
    assert admission.overload() is not None, "one"
    arrival.set(admission.enter())
    await world.start("s0")
    assert admission.overload() is None


async def test_a_start_counts_from_when_it_came_to_the_node(world: World) -> None:
    admission = world.engine.admission
    came = [admission.enter() for _ in range(BATCH // 2)]
    assert admission.overload() is None
    await world.advance(LATE_S * 1.1)  # none of them is read yet
    assert admission.overload() is not None
    arrival.set(came[0])
    await world.start("s0")
    assert admission.arriving == BATCH // 2 - 1
    assert admission.overload() is None


async def test_a_call_that_ends_before_it_has_begun_a_saga_counts_no_longer(world: World) -> None:
    admission = world.engine.admission
    coming = admission.enter()
    coming.call_ended()
    coming.call_ended()
    assert admission.arriving == 0


async def test_a_saga_counts_until_it_is_durable_though_its_caller_has_left(world: World) -> None:
    slow = Slow(world)
    coming = world.engine.admission.enter()
    arrival.set(coming)
    task = world.starting("s0")
    await world.settle()
    task.cancel()
    coming.call_ended()
    assert world.engine.admission.arriving == 1
    await slow.recovers()
    assert world.engine.admission.arriving == 0


async def test_what_starts_nothing_new_counts_no_longer(world: World) -> None:
    await world.start("s0")
    for command in (world.starting("s0"), world.starting("s0", {"other": "content"}), world.starting("s0", wait=True)):
        await world.settle()
        assert world.engine.admission.arriving == 0
        command.cancel()
        await asyncio.gather(command, return_exceptions=True)


async def test_starts_leave_a_tenth_of_the_memory_to_sagas_that_wake_up() -> None:
    world = World(ORDER, settings=Settings(max_sagas_in_memory=20))
    await world.boot()
    for number in range(5):
        await world.start(f"sleeper{number}")
        await world.answer(f"sleeper{number}:reserve", Pending())
    assert world.engine.sagas == {}
    for number in range(18):
        await world.start(f"s{number}")
    assert (await refusal(world, "late")).reason == "TOO_MANY_SAGAS"
    await world.advance(3605)
    for number in range(5):
        await world.answer(f"sleeper{number}:reserve", DONE)
        await world.answer(f"sleeper{number}:charge", DONE)
        await world.advance(2)
    for number in range(5):
        assert (await world.saga(f"sleeper{number}")).state is SagaState.SUCCEEDED
    await world.die()
