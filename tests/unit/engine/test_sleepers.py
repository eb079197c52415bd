"""A saga that has nothing to do for more than a minute leaves memory, and nothing about it is lost."""

import asyncio

import pytest
from support.definitions import definition, step
from support.world import World

from sagad_server.domain.inputs import Pending, Success
from sagad_server.domain.states import SagaState, StepState
from sagad_server.engine.ports import Snapshot, Tombstone
from sagad_server.engine.settings import Settings
from sagad_server.storage.rows import Key, LoadedSaga

DONE = Success(None)
KEY = ("default", "a")
ORDER = definition(step("reserve", completionTimeout="3600s"), step("charge"))


async def booted(settings: Settings | None = None) -> World:
    world = World(ORDER, settings=settings)
    await world.boot()
    return world


async def asleep(world: World, saga_id: str = "a", timeout_ms: int | None = None) -> str:
    """A saga that waits for CompleteStep; its token."""
    await world.start(saga_id, timeout_ms=timeout_ms)
    call = await world.answer(f"{saga_id}:reserve", Pending())
    assert ("default", saga_id) not in world.engine.sagas
    return call.request.completion_token


async def complete(world: World, token: str) -> Snapshot | Tombstone:
    asked = asyncio.ensure_future(world.commands.complete(KEY, "reserve", token, DONE, actor="me"))
    await world.settle()
    return await asked


async def test_a_sleeper_is_not_in_memory_has_no_owner_and_is_shown_as_it_is() -> None:
    world = await booted()
    await asleep(world)
    assert world.engine.sagas == {}
    assert world.clock.next_at() is not None
    assert world.database.sagas[KEY].row.owner is None
    assert (await world.saga("a")).steps[0].state is StepState.AWAITING_COMPLETION


async def test_a_wait_of_a_minute_stays_in_memory() -> None:
    world = World(definition(step("reserve", completionTimeout="60s")))
    await world.boot()
    await world.start("a")
    await world.answer("a:reserve", Pending())
    assert KEY in world.engine.sagas


async def test_a_sleeper_comes_back_on_time() -> None:
    world = await booted()
    await asleep(world)
    await world.advance(3599)
    assert world.transport.sent == ["a:reserve"]
    await world.advance(2)
    assert world.transport.sent == ["a:reserve", "a:reserve"]
    assert world.recovery.stranded == 0


async def test_a_sleeper_comes_back_for_its_deadline() -> None:
    world = await booted()
    await asleep(world, timeout_ms=600_000)
    await world.advance(601)
    assert world.transport.sent == ["a:reserve", "a:-reserve"]


async def test_complete_step_wakes_a_sleeper_and_its_next_calls_carry_the_next_fencing_token() -> None:
    world = await booted()
    token = await asleep(world)
    answer = await complete(world, token)
    assert isinstance(answer, Snapshot)
    assert world.transport.take("a:charge").request.fencing_token == 2
    assert world.database.sagas[KEY].row.owner is not None


async def test_a_repeated_complete_step_leaves_a_sleeper_asleep() -> None:
    first, second = (step(name, completionTimeout="3600s", dependsOn=[]) for name in ("reserve", "ship"))
    world = World(definition(first, second, step("end", "reserve", "ship")))
    await world.boot()
    await world.start("a")
    token = (await world.answer("a:reserve", Pending())).request.completion_token
    await world.answer("a:ship", Pending())
    for _ in range(2):
        await complete(world, token)
        assert world.engine.sagas == {}
    assert world.database.sagas[KEY].row.revision == 4


@pytest.mark.parametrize("turns", range(8))
async def test_complete_step_is_not_lost_whenever_the_saga_falls_asleep(turns: int) -> None:
    """The answer `pending`, its write and CompleteStep, apart by a few turns of the loop."""
    world = await booted()
    await world.start("a")
    call = world.transport.take("a:reserve")
    call.on_outcome(call, Pending())
    for _ in range(turns):
        await asyncio.sleep(0)
    await complete(world, call.request.completion_token)
    await world.answer("a:charge", DONE)
    assert (await world.saga("a")).state is SagaState.SUCCEEDED


async def test_a_caller_that_waits_for_the_end_gets_it_though_the_saga_has_slept() -> None:
    world = await booted()
    waiting = world.starting("a", wait=True)
    await world.settle()
    token = (await world.answer("a:reserve", Pending())).request.completion_token
    await world.advance(120)
    repeated = world.starting("a", wait=True)
    await world.advance(5)
    await complete(world, token)
    await world.answer("a:charge", DONE)
    await world.advance(3)
    for caller in (waiting, repeated):
        answer = await caller
        assert isinstance(answer, Snapshot)
        assert answer.saga.state is SagaState.SUCCEEDED


async def test_a_caller_gets_the_end_that_another_node_has_brought_about() -> None:
    first = await booted()
    second = World(ORDER, name="n2", beside=first)
    await second.boot()
    waiting = first.starting("a", wait=True)
    await first.settle()
    token = (await first.answer("a:reserve", Pending())).request.completion_token
    await complete(second, token)
    await second.answer("a:charge", DONE)
    await first.advance(3)
    answer = await waiting
    assert isinstance(answer, Snapshot)
    assert answer.saga.state is SagaState.SUCCEEDED


async def test_a_caller_is_not_told_of_a_saga_that_moves_on_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await booted()
    await complete(world, await asleep(world))
    await world.answer("a:charge", DONE)
    real = world.store.load

    async def load_late(key: Key) -> LoadedSaga | None:
        monkeypatch.undo()
        await world.commands.compensate(KEY, reason="changed my mind", actor="me")
        return await real(key)

    monkeypatch.setattr(world.store, "load", load_late)
    waiting = asyncio.ensure_future(world.commands.ends.of(KEY))
    await world.settle()
    assert not waiting.done()
    await world.answer("a:-charge", DONE)
    await world.answer("a:-reserve", DONE)
    await world.advance(3)
    answer = await waiting
    assert isinstance(answer, Snapshot)
    assert answer.saga.state is SagaState.COMPENSATED


async def test_a_watch_of_a_sleeper_hears_of_what_wakes_it() -> None:
    world = await booted()
    subscription = world.engine.watches.subscribe(KEY)
    token = await asleep(world)
    await complete(world, token)
    events = [subscription.take() for _ in range(3)]
    assert [event.revision for event in events if event] == [1, 2, 3]


async def test_many_that_are_due_at_once_come_back_in_batches_and_leave_room_for_starts() -> None:
    settings = Settings(max_sagas_in_memory=40, claim_batch=10)
    world = await booted(settings)
    for number in range(60):
        await asleep(world, f"s{number}")
    world.clock.now_s += 3600
    most = 0
    for _ in range(6):
        await world.advance(0.4)  # less than there is between two batches
        assert len(world.engine.sagas) - most <= settings.claim_batch
        most = len(world.engine.sagas)
    assert settings.max_sagas_in_memory // 2 <= most < settings.max_sagas_in_memory
    await world.start("new")
    for _ in range(200):
        for call in list(world.transport.calls):
            await world.answer(f"{call.key[1]}:{call.request.step_id}", DONE)
        if not world.engine.sagas:
            break
        await world.advance(0.5)
    await world.advance(30)
    states = {saga.row.saga_id: saga.row.state for saga in world.database.sagas.values()}
    assert sum(call.count("reserve") for call in world.transport.sent) == 60 + 60 + 1, states
