"""Calls that meet each other, the store or the end of memory at a bad moment."""

import asyncio

import pytest
from support.definitions import definition, pivot, retriable, step
from support.play import payload, refused
from support.world import World, stored

from sagad_server.domain.errors import AlreadyExists, FailedPrecondition, InvalidArgument, SagadError, Unavailable
from sagad_server.domain.inputs import Pending, Success
from sagad_server.domain.states import SagaState, StepState
from sagad_server.engine import engine as engine_module
from sagad_server.engine.loader import Loader
from sagad_server.engine.settings import Settings
from sagad_server.storage.rows import Key, LoadedSaga, SagaRow

DONE = Success(None)
KEY = ("default", "a")
ORDER = definition(step("one"))


@pytest.fixture
async def world() -> World:
    world = World(ORDER)
    await world.boot()
    return world


async def test_a_client_that_waits_again_and_again_leaves_nothing_behind(world: World) -> None:
    await world.start("a")
    for _ in range(20):
        waiting = world.starting("a", wait=True)
        await world.settle()
        waiting.cancel()
        await world.settle()
    assert world.engine.sagas[KEY].at_rest == []
    leaving = world.starting("b", wait=True)
    await world.settle()
    leaving.cancel()
    await world.settle()
    assert world.engine.sagas["default", "b"].at_rest == []


async def test_a_repeat_is_not_refused_because_of_a_start_that_is_not_durable(world: World) -> None:
    await world.start("warm")
    await world.start("a", 1)
    await world.answer("a:one", DONE)
    world.store.gate.clear()
    other = world.starting("a", 2)
    await world.settle()
    repeat = world.starting("a", 1)
    await world.settle()
    world.store.gate.set()
    await world.settle()
    with pytest.raises(AlreadyExists):
        await other
    assert (await repeat).saga.state is SagaState.SUCCEEDED  # type: ignore[union-attr]


async def test_a_call_about_a_saga_is_not_judged_by_a_start_that_is_not_durable() -> None:
    world = World(definition(pivot("pay"), retriable("ship", "pay")))
    await world.boot()
    await world.start("a", 1)
    await world.answer("a:pay", DONE)
    ship = await world.answer("a:ship", refused())
    world.store.gate.clear()
    other = world.starting("a", 2)
    await world.settle()
    completing = asyncio.ensure_future(
        world.commands.complete(KEY, "ship", ship.request.completion_token, DONE, actor="")
    )
    await world.settle()
    world.store.gate.set()
    await world.settle()
    with pytest.raises(AlreadyExists):
        await other
    with pytest.raises(Unavailable):
        await completing
    await world.commands.complete(KEY, "ship", ship.request.completion_token, DONE, actor="")
    assert (await world.saga("a")).state is SagaState.SUCCEEDED


async def test_a_repeat_is_answered_even_by_a_node_whose_memory_is_full() -> None:
    world = World(ORDER, settings=Settings(max_sagas_in_memory=1))
    await world.boot()
    await world.start("a")
    await world.answer("a:one", DONE)
    await world.start("b")
    assert (await world.start("a")).state is SagaState.SUCCEEDED


async def test_a_repeat_that_meets_another_call_is_answered_before_the_definition_is_looked_at(world: World) -> None:
    await world.start("a")
    await world.answer("a:one", DONE)
    await world.store.set_definition_active("default", "order", "1.0.0", active=False)
    world.commands._definitions.refresh()
    real = world.store.get_row
    world.store.gate.clear()

    async def slow(key: tuple[str, str]) -> object:
        row = await real(key)
        await world.settle()
        return row

    world.store.get_row = slow  # type: ignore[method-assign, assignment]
    repeat = world.starting("a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    compensating = asyncio.ensure_future(world.commands.compensate(KEY, reason="", actor=""))
    await world.settle()
    await world.settle()
    world.store.gate.set()
    await world.settle()
    assert (await repeat).saga.state in (SagaState.SUCCEEDED, SagaState.COMPENSATING)  # type: ignore[union-attr]
    await compensating


async def test_a_start_that_meets_a_saga_nobody_can_read_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.start("warm")
    await world.start("a")
    await world.answer("a:one", DONE)

    async def broken(self: Loader, loaded: LoadedSaga) -> object:
        raise ValueError("no such step")

    monkeypatch.setattr(Loader, "snapshot", broken)
    repeat = world.starting("a")
    await world.settle()
    assert repeat.done()
    with pytest.raises(SagadError):
        await repeat
    assert [key for key, _ in world.observer.incidents] == [KEY]


async def test_a_compensation_that_answers_with_an_output_is_done_however_much_the_saga_holds() -> None:
    world = World(definition(step("one"), step("two")), settings=Settings(max_saga_payload_bytes=100))
    await world.boot()
    await world.start("a")
    await world.answer("a:one", Success(payload("x" * 80)))
    await world.answer("a:two", refused())
    await world.answer("a:-one", Success(payload("y" * 80)))
    assert (await world.saga("a")).state is SagaState.COMPENSATED


async def test_an_output_that_is_not_kept_takes_no_room() -> None:
    world = World(definition(step("one"), step("two")), settings=Settings(max_saga_payload_bytes=100))
    await world.boot()
    await world.start("a")
    lost = world.transport.take("a:one")
    await world.commands.complete(KEY, "one", lost.request.completion_token, DONE, actor="")
    lost.on_outcome(lost, Success(payload("x" * 80)))
    await world.settle()
    await world.answer("a:two", Success(payload("y" * 80)))
    assert (await world.saga("a")).state is SagaState.SUCCEEDED


async def test_complete_step_and_skip_step_keep_within_the_bound_of_a_saga() -> None:
    world = World(definition(pivot("pay"), retriable("ship", "pay")), settings=Settings(max_saga_payload_bytes=100))
    await world.boot()
    await world.start("a")
    pay = await world.answer("a:pay", Pending())
    big = payload("x" * 200)
    with pytest.raises(InvalidArgument, match="100 bytes"):
        await world.commands.complete(KEY, "pay", pay.request.completion_token, Success(big), actor="")
    await world.commands.complete(KEY, "pay", pay.request.completion_token, DONE, actor="")
    await world.answer("a:ship", refused())
    revision = (await world.saga("a")).revision
    with pytest.raises(InvalidArgument, match="100 bytes"):
        await world.commands.skip(
            KEY, revision=revision, step_id="ship", executed=None, output=big, reason="r", actor=""
        )
    with pytest.raises(InvalidArgument, match="100 bytes"):
        await world.commands.retry(KEY, revision=revision, step_id="ship", new_input=big, reason="r", actor="")


async def test_many_retries_do_not_make_a_saga_grow_in_memory() -> None:
    retry = {"initialBackoff": "1s", "maxBackoff": "1s"}
    world = World(definition(pivot("pay"), retriable("ship", "pay", retry=retry)))
    await world.boot()
    await world.start("a")
    await world.answer("a:pay", DONE)
    for _ in range(200):
        await world.answer("a:ship", refused(retryable=True))
        await world.advance(1)
    active = world.engine.sagas[KEY]
    assert len(active.times) < 50
    saga = active.saga
    assert {1, saga.revision, saga.steps[1].since_revision, saga.steps[1].changed_revision} <= set(active.times)


async def test_a_step_of_a_saga_parked_as_a_whole_is_not_closed_to_its_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(definition(step("left"), step("right"), step("end", "left", "right")))
    await world.boot()
    await world.start("a")
    left = await world.answer("a:left", Pending())

    def poisoned(active: object, *rest: object) -> object:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "write_of", poisoned)
        await world.answer("a:right", DONE)
    token = left.request.completion_token
    with pytest.raises(Unavailable) as caught:
        await world.commands.complete(KEY, "left", token, DONE, actor="")
    assert caught.value.retry_after_ms
    revision = (await world.saga("a")).revision
    await world.commands.retry(KEY, revision=revision, step_id="", new_input=None, reason="mended", actor="")
    await world.commands.complete(KEY, "left", token, DONE, actor="")
    assert (await world.saga("a")).steps[0].state is StepState.SUCCEEDED


async def test_a_definition_that_was_deleted_and_made_anew_can_be_started_again_by_a_node_that_kept_it(
    world: World,
) -> None:
    await world.start("a")
    await world.answer("a:one", DONE)
    world.database.sagas.clear()
    (message,) = world._messages
    await world.store.delete_definition("default", "order", "1.0.0")
    with pytest.raises(FailedPrecondition, match="deleted meanwhile"):
        await world.start("b")
    with pytest.raises(AlreadyExists):
        await world.store.create_definition(stored(definition(step("other"))), 1000, 10_000)
    await world.store.create_definition(stored(message), 1000, 10_000)
    await world.start("c")
    assert world.transport.sent[-1] == "c:one"


async def test_wait_never_answers_with_a_saga_that_moves() -> None:
    world = World(definition(pivot("pay"), retriable("ship", "pay")))
    await world.boot()
    await world.start("a")
    await world.answer("a:pay", DONE)
    await world.answer("a:ship", refused())
    world.commands._definitions.refresh()
    real = world.store.get_row

    async def slow(key: tuple[str, str]) -> object:
        row = await real(key)
        await world.commands.retry(KEY, revision=3, step_id="", new_input=None, reason="again", actor="")
        world.engine.sagas[KEY], held = None, world.engine.sagas[KEY]  # type: ignore[assignment]
        del world.engine.sagas[KEY]
        asyncio.get_running_loop().call_soon(world.engine.admit, held)
        return row

    world.store.get_row = slow  # type: ignore[method-assign, assignment]
    task = world.starting("a", wait=True)
    await world.settle()
    with pytest.raises(Unavailable):
        await task


async def test_whoever_waits_for_the_end_of_a_saga_is_told_that_the_node_stops(world: World) -> None:
    waiting = world.starting("a", wait=True)
    await world.settle()
    world.engine.draining = True
    world.engine.dismiss_waiters()
    await world.settle()
    with pytest.raises(Unavailable) as caught:
        await waiting
    assert (caught.value.reason, caught.value.retry_after_ms) == ("DRAINING", 1000)


async def test_the_same_outcome_again_is_ok_however_full_the_saga_is() -> None:
    world = World(definition(step("one"), step("two")), settings=Settings(max_saga_payload_bytes=120))
    await world.boot()
    await world.start("a")
    one = await world.answer("a:one", Pending())
    outcome = Success(payload("x" * 80))
    for _ in range(2):
        await world.commands.complete(KEY, "one", one.request.completion_token, outcome, actor="")
    assert (await world.saga("a")).steps[1].state is StepState.RUNNING


async def test_a_node_that_drains_while_a_start_reads_does_not_take_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(definition(step("one")))
    await world.boot()
    get_row = world.store.get_row

    async def drained(key: Key) -> SagaRow | None:
        world.engine.draining = True
        return await get_row(key)

    monkeypatch.setattr(world.store, "get_row", drained)
    task = world.starting("s0")  # its definition is not known yet
    await world.settle()
    with pytest.raises(Unavailable, match="shutting down"):
        await task
    assert world.engine.sagas == {}
    assert world.engine.admission.arriving == 0
