"""The writer in corners: what is unknown stays unknown, and no single saga holds the others up."""

import asyncio
from collections.abc import Sequence

import pytest
from support.definitions import definition, step
from support.world import World

from sagad_server.domain.errors import FailedPrecondition, InvalidArgument, Unavailable
from sagad_server.domain.inputs import Success
from sagad_server.domain.states import SagaState
from sagad_server.storage.rows import Key, RowState
from sagad_server.storage.store import CommitUnknown, LostRace, Retryable
from sagad_server.storage.writes import Batch, Committed

DONE = Success(None)
KEY = ("default", "a")


@pytest.fixture
async def world() -> World:
    world = World(definition(step("one")))
    await world.boot()
    return world


async def test_a_saga_that_is_purged_under_a_write_does_not_stop_the_writer(world: World) -> None:
    await world.start("a")
    await world.answer("a:one", DONE)
    world.store.gate.clear()
    asked = asyncio.ensure_future(world.commands.compensate(KEY, reason="", actor=""))
    await world.settle()
    world.database.sagas[KEY].purge(world.clock.now())
    world.store.gate.set()
    await world.settle()
    with pytest.raises(Unavailable):
        await asked
    with pytest.raises(FailedPrecondition, match="purged"):
        await world.commands.compensate(KEY, reason="", actor="")
    assert (await world.start("b")).state is SagaState.RUNNING


async def test_a_start_whose_commits_are_lost_again_and_again_is_never_told_that_its_definition_is_gone(
    world: World,
) -> None:
    world.store.before.extend([CommitUnknown("cut off")] * 6)
    task = world.starting("a", wait=True)
    await world.advance(0.1)
    if task.done():
        with pytest.raises(Unavailable):
            await task
    await world.advance(30)
    assert world.transport.sent == ["a:one"]
    assert world.journal("a") == [1]


async def test_a_start_whose_definition_is_gone_is_refused(world: World) -> None:
    await world.start("warm")
    await world.answer("warm:one", DONE)
    world.database.definitions.clear()
    world.store.before.append(CommitUnknown("cut off"))
    task = world.starting("a")
    await world.advance(5)
    with pytest.raises(FailedPrecondition, match="deleted"):
        await task
    assert world.engine.writer.idle


async def test_a_writer_that_has_settled_all_is_healthy_again(world: World) -> None:
    await world.start("a")
    world.store.before.append(Retryable("away"))
    world.store.after.append(CommitUnknown("cut off"))
    await world.answer("a:one", DONE)
    await world.advance(5)
    assert (await world.saga("a")).state is SagaState.SUCCEEDED
    assert world.engine.writer.healthy
    assert (await world.start("b")).state is SagaState.RUNNING


async def test_races_for_locks_that_are_lost_are_no_outage(world: World) -> None:
    world.store.before.extend([LostRace("x"), LostRace("x"), LostRace("x")])
    task = world.starting("a")
    await world.advance(1)
    assert (await task).saga.state is SagaState.RUNNING  # type: ignore[union-attr]  # no tombstone
    assert world.engine.writer.healthy
    assert world.observer.failures == ["LostRace"] * 3


async def test_a_lock_that_is_never_won_holds_up_no_other_saga(world: World) -> None:
    world.store.gate.clear()
    first = world.starting("first")
    await world.settle()
    tasks = {saga_id: world.starting(saga_id) for saga_id in ("a", "b")}
    await world.settle()
    real = world.store.commit

    async def commit(batch: Batch) -> Committed:
        if any(write.key[1] == "a" for write in batch.writes):
            raise LostRace("held by nobody")
        return await real(batch)

    world.store.commit = commit  # type: ignore[method-assign]
    world.store.gate.set()
    await world.advance(5)
    await first
    assert (await tasks["b"]).saga.state is SagaState.RUNNING  # type: ignore[union-attr]
    with pytest.raises(InvalidArgument):
        await tasks["a"]
    assert world.engine.writer.idle


async def test_a_start_that_was_written_and_that_another_node_has_gone_on_with_is_not_driven_here(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = world.store.resolve

    async def resolve(keys: Sequence[Key]) -> dict[Key, RowState]:
        world.database.sagas[KEY].row.epoch += 1
        return await real(keys)

    monkeypatch.setattr(world.store, "resolve", resolve)
    world.store.after.append(CommitUnknown("cut off"))
    task = world.starting("a")
    await world.advance(1)
    with pytest.raises(Unavailable):
        await task
    assert world.transport.sent == []


async def test_of_two_starts_of_one_id_both_hear_that_the_store_is_away(world: World) -> None:
    world.store.before = [Retryable("away") for _ in range(100)]
    first = world.starting("same", {"n": 1})
    await world.settle()
    second = world.starting("same", {"n": 2})
    await world.advance(5)
    for task in (first, second):
        with pytest.raises(Unavailable):
            await asyncio.wait_for(task, 1)
    assert world.engine.admission.arriving == 0
