"""A node takes over what its predecessor left."""

import asyncio

import pytest
from support.definitions import definition, pivot, retriable, step
from support.play import TIMED_OUT, payload, refused
from support.world import Death, World

from sagad_server.domain.inputs import Pending, Success
from sagad_server.domain.states import ParkingReason, SagaState, StepState
from sagad_server.engine import engine as engine_module
from sagad_server.engine.loader import Loader
from sagad_server.storage import memory_database
from sagad_server.storage.rows import LoadedSaga

DONE = Success(None)
ORDER = definition(step("reserve"), step("charge", maxRetries=1), step("ship"))


async def booted(*definitions: object) -> World:
    world = World(*(definitions or (ORDER,)))  # type: ignore[arg-type]
    await world.boot()
    return world


async def test_what_was_in_flight_is_called_again_at_once_with_the_same_key() -> None:
    world = await booted()
    await world.start("a", {"sku": "x"})
    first = await world.answer("a:reserve", DONE)
    lost = world.transport.take("a:charge")
    await world.die()
    await world.boot()
    again = world.transport.take("a:charge")
    assert again.request.idempotency_key == lost.request.idempotency_key
    assert again.request.input == first.request.input, "the data comes back from the journal"
    assert again.request.fencing_token == lost.request.fencing_token + 1
    assert again.request.attempt == 2


async def test_a_call_repeated_because_of_a_crash_uses_no_retry() -> None:
    world = await booted()
    await world.start("a")
    await world.answer("a:reserve", DONE)
    for _ in range(5):
        await world.die()
        await world.boot()
    assert (await world.saga("a")).steps[1].retries == 0


async def test_what_was_in_flight_at_a_crash_is_compensated_even_if_refused_later() -> None:
    world = await booted()
    await world.start("a")
    await world.answer("a:reserve", DONE)
    await world.die()
    await world.boot()
    await world.answer("a:charge", refused())
    assert world.transport.sent[-1] == "a:-charge"


async def test_a_back_off_goes_on_where_it_was() -> None:
    world = await booted(definition(step("one", retry={"initialBackoff": "20s", "maxBackoff": "20s"})))
    await world.start("a")
    await world.answer("a:one", TIMED_OUT)
    assert (await world.saga("a")).steps[0].delay_ms == 10_000
    await world.advance(6)
    await world.die()
    await world.advance(1)
    await world.boot()
    assert world.transport.sent == []
    await world.advance(2.5)
    assert world.transport.sent == []
    await world.advance(1)
    assert world.transport.sent == ["a:one"]


async def test_a_back_off_that_passed_while_nobody_lived_is_over_at_once() -> None:
    world = await booted(definition(step("one", retry={"initialBackoff": "20s", "maxBackoff": "20s"})))
    await world.start("a")
    await world.answer("a:one", TIMED_OUT)
    await world.die()
    await world.advance(60)
    await world.boot()
    await world.advance(0.01)
    assert world.transport.sent == ["a:one"]


async def test_the_deadline_survives_a_crash() -> None:
    world = await booted(definition(step("one", completionTimeout="3600s"), step("two")))
    await world.start("a", timeout_ms=10_000)
    await world.answer("a:one", Pending())
    await world.advance(6)
    await world.die()
    await world.boot()
    await world.advance(3)
    assert (await world.saga("a")).state is SagaState.RUNNING
    await world.advance(1.5)
    assert (await world.saga("a")).state is SagaState.COMPENSATING


async def test_a_compensation_in_flight_is_called_again() -> None:
    world = await booted()
    await world.start("a")
    await world.answer("a:reserve", DONE)
    await world.answer("a:charge", refused())
    await world.die()
    await world.boot()
    await world.answer("a:-reserve", DONE)
    assert (await world.saga("a")).state is SagaState.COMPENSATED


async def test_parked_and_ended_sagas_are_left_alone() -> None:
    world = await booted(definition(pivot("pay", maxRetries=0)))
    await world.start("a")
    await world.answer("a:pay", TIMED_OUT)
    await world.start("b")
    await world.answer("b:pay", DONE)
    await world.die()
    await world.boot()
    assert world.engine.sagas == {}
    assert world.transport.sent == []


async def test_sagas_are_claimed_in_bounded_batches() -> None:
    world = await booted()
    for i in range(7):
        await world.start(f"s{i}")
    await world.die()
    object.__setattr__(world.settings, "claim_batch", 3)
    await world.boot()
    await world.settle()
    await world.settle()
    assert len(world.engine.sagas) == 7


async def test_a_saga_whose_stored_data_cannot_be_read_is_parked_and_the_others_go_on() -> None:
    world = await booted()
    await world.start("a")
    await world.start("b")
    world.database.sagas["default", "a"].row.body = b"\xff\xff"
    await world.die()
    await world.boot()
    row = world.database.sagas["default", "a"].row
    assert row.state == SagaState.PARKED
    assert row.parking_mask == 1 << ParkingReason.INTERNAL
    assert world.transport.sent == ["b:reserve"]


async def test_a_saga_that_was_retried_for_long_goes_on_where_it_was_and_takes_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_database, "WHOLE", 20)
    every_ten_s = {"initialBackoff": "20s", "maxBackoff": "20s", "retryFor": "3600s"}  # half of it in this world
    world = await booted(definition(step("reserve"), pivot("charge"), retriable("ship", retry=every_ten_s)))
    await world.start("a", {"sku": "x"})
    await world.answer("a:reserve", Success(payload({"reservation": 7})))
    await world.answer("a:charge", DONE)
    for _ in range(13):
        first = await world.answer("a:ship", TIMED_OUT)
        await world.advance(10)
    await world.answer("a:ship", TIMED_OUT)
    await world.die()
    await world.boot()
    active = world.engine.sagas["default", "a"]
    assert active.saga.revision > 20
    assert len(active.times) < 10
    assert active.elapsed_ms(active.saga.steps[2].since_revision, world.clock.now_s) == 130_000
    await world.advance(9)
    assert world.transport.calls == []
    await world.advance(1)
    again = await world.answer("a:ship", DONE)
    assert again.request.idempotency_key == first.request.idempotency_key
    assert again.request.input == first.request.input
    assert (await world.saga("a")).steps[0].output == payload({"reservation": 7})
    assert (await world.saga("a")).state is SagaState.SUCCEEDED


async def test_the_third_death_over_just_one_saga_parks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await booted()
    await world.start("a")
    await world.start("b")
    real = Loader.active

    async def deadly(self: Loader, loaded: LoadedSaga, *, owned: bool) -> object:
        if loaded.row.saga_id == "a":
            raise Death
        return await real(self, loaded, owned=owned)

    monkeypatch.setattr(Loader, "active", deadly)
    deaths = 0
    while world.database.sagas["default", "a"].row.state != SagaState.PARKED:
        await world.die()
        await world.boot()
        deaths += 1
        assert deaths < 10
    assert world.database.sagas["default", "a"].row.parking_mask == 1 << ParkingReason.NO_PROGRESS
    assert "b:reserve" in world.transport.sent


async def test_a_clean_death_never_counts_against_a_saga() -> None:
    world = await booted()
    await world.start("a")
    for _ in range(6):
        await world.die()
        await world.boot()
    assert world.database.sagas["default", "a"].row.state == SagaState.RUNNING


async def test_a_saga_that_is_ours_but_not_in_memory_is_found() -> None:
    world = await booted()
    await world.start("a")
    world.engine._drop(world.engine.sagas["default", "a"])
    await world.advance(10)
    assert world.recovery.stranded == 1
    assert world.transport.sent == ["a:reserve", "a:reserve"]


async def test_a_drained_node_leaves_no_ambiguity_behind() -> None:
    world = await booted()
    await world.start("a")
    world.engine.draining = True
    await world.transport.drain()
    await world.answer("a:reserve", DONE)
    await world.die()
    saga = world.database.sagas["default", "a"]
    assert saga.row.revision == 3
    await world.boot()
    await world.advance(60)
    saga_now = await world.saga("a")
    assert not saga_now.steps[1].may_have_happened
    assert saga_now.steps[1].state is StepState.RUNNING


async def test_a_wait_goes_on_after_a_saga_parked_as_a_whole_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"initialBackoff": "20s", "maxBackoff": "20s"}
    world = await booted(definition(step("left", retry=slow), step("right"), step("end", "left", "right")))
    await world.start("a")
    await world.answer("a:left", TIMED_OUT)
    real = engine_module.write_of

    def poisoned(active: object, *rest: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(engine_module, "write_of", poisoned)
    await world.answer("a:right", DONE)
    monkeypatch.setattr(engine_module, "write_of", real)
    saga = await world.saga("a")
    assert saga.incident is ParkingReason.INTERNAL
    await world.advance(6)
    retrying = asyncio.ensure_future(
        world.commands.retry(
            ("default", "a"), revision=saga.revision, step_id="", new_input=None, reason="mended", actor="me"
        )
    )
    await world.settle()
    await retrying
    assert "a:left" not in world.transport.sent[2:]
    await world.advance(4.1)
    assert world.transport.sent[-1] == "a:left"
