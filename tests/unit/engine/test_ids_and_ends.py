"""Ids that come back, definitions that are switched off, and deaths that nobody is to blame for."""

import pytest
from support.definitions import definition, step
from support.play import TIMED_OUT
from support.world import World

from sagad_server.domain.errors import FailedPrecondition
from sagad_server.domain.inputs import Outcome, Pending, Success
from sagad_server.domain.states import SagaState
from sagad_server.engine.ports import Tombstone

DONE = Success(None)
KEY = ("default", "a")


@pytest.fixture
async def world() -> World:
    world = World(definition(step("one"), step("two")))
    await world.boot()
    return world


async def test_a_deactivated_definition_starts_nothing_new_and_finishes_the_old(world: World) -> None:
    await world.start("a")
    stored = await world.store.set_definition_active("default", "order", "1.0.0", active=False)
    assert stored is not None
    world.commands._definitions.changed(stored)
    with pytest.raises(FailedPrecondition):
        await world.start("b")
    await world.die()
    await world.boot()
    await world.answer("a:one", DONE)
    await world.answer("a:two", DONE)
    assert (await world.saga("a")).state is SagaState.SUCCEEDED


async def ended(world: World) -> str:
    """A saga from its start to its end; returns the key of its first step."""
    await world.start("a")
    first = await world.answer("a:one", DONE)
    await world.answer("a:two", DONE)
    return first.request.idempotency_key


@pytest.mark.parametrize("wait", [False, True])
async def test_a_late_start_of_a_purged_saga_returns_the_end_and_starts_nothing(world: World, wait: bool) -> None:
    await ended(world)
    world.database.sagas[KEY].purge(world.clock.now())
    sent = list(world.transport.sent)
    task = world.starting("a", wait=wait)
    await world.settle()
    answer = await task
    assert isinstance(answer, Tombstone)
    assert answer.state is SagaState.SUCCEEDED
    assert world.transport.sent == sent


async def test_a_reused_id_never_meets_old_answers(world: World) -> None:
    old = await ended(world)
    world.database.sagas.clear()  # even its tombstone is gone
    await world.start("a")
    assert world.transport.take("a:one").request.idempotency_key != old


@pytest.mark.parametrize("outcome", [None, TIMED_OUT, Pending()])
async def test_a_call_in_flight_a_back_off_or_a_pending_step_never_counts_against_a_saga(
    world: World, outcome: Outcome | None
) -> None:
    await world.start("a")
    if outcome is not None:
        await world.answer("a:one", outcome)
    for _ in range(5):
        await world.die()
        await world.boot()
    saga = world.database.sagas[KEY]
    assert (saga.row.state, saga.crashes) == (SagaState.RUNNING, 0)


async def test_two_deaths_over_a_saga_and_then_progress_begin_the_count_anew(world: World) -> None:
    await world.start("a")
    for _ in range(2):
        await world.die()
        world.database.loading[list(world.database.nodes)[-1]] = [KEY]
        await world.boot()
        assert world.database.sagas[KEY].crashes <= 1, "taking it over was progress: it called again"
    assert world.database.sagas[KEY].row.state == SagaState.RUNNING
