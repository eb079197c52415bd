"""Persist, then act: what happens at each place where the store or the process can fail."""

import asyncio

import pytest
from support.definitions import definition, step
from support.play import refused
from support.world import World

from sagad_server.domain.errors import AlreadyExists, FailedPrecondition, Internal, InvalidArgument, Unavailable
from sagad_server.domain.inputs import Pending, Success
from sagad_server.domain.states import ParkingReason, SagaState, StepState
from sagad_server.engine import engine as engine_module
from sagad_server.storage.store import CommitUnknown, DataRejected, Retryable

DONE = Success(None)
ORDER = definition(step("reserve"), step("charge"), step("ship"))


@pytest.fixture
async def world() -> World:
    world = World(ORDER)
    await world.boot()
    return world


async def test_a_call_goes_out_only_after_the_commit_that_names_it(world: World) -> None:
    world.store.gate.clear()
    task = world.starting("a")
    await world.settle()
    assert world.transport.sent == []
    assert not task.done()
    world.store.gate.set()
    await world.settle()
    assert world.transport.sent == ["a:reserve"]
    assert task.done()


async def test_a_lone_three_step_saga_costs_four_commits(world: World) -> None:
    await world.start("a")
    for call in ("a:reserve", "a:charge", "a:ship"):
        await world.answer(call, DONE)
    assert (await world.saga("a")).state is SagaState.SUCCEEDED
    assert world.store.commits == 4
    assert world.journal("a") == [1, 2, 3, 4]


async def test_transitions_that_are_ready_together_share_a_commit(world: World) -> None:
    await world.start("warm")
    before = world.store.commits
    tasks = [world.starting(f"s{i}") for i in range(50)]
    await world.settle()
    await asyncio.gather(*tasks)
    assert world.store.commits - before <= 2


async def test_an_ended_saga_leaves_memory(world: World) -> None:
    await world.start("a")
    for call in ("a:reserve", "a:charge", "a:ship"):
        await world.answer(call, DONE)
    assert world.engine.sagas == {}


async def test_a_commit_whose_answer_was_lost_counts_as_made(world: World) -> None:
    await world.start("a")
    world.store.after.append(CommitUnknown("cut off"))
    await world.answer("a:reserve", DONE)
    await world.advance(1)
    assert world.transport.sent == ["a:reserve", "a:charge"]
    assert world.journal("a") == [1, 2]


async def test_a_commit_that_was_not_made_is_sent_again(world: World) -> None:
    await world.start("a")
    world.store.before.append(CommitUnknown("cut off"))
    await world.answer("a:reserve", DONE)
    await world.advance(1)
    assert world.transport.sent == ["a:reserve", "a:charge"]
    assert world.journal("a") == [1, 2]


@pytest.mark.parametrize("made", [True, False])
async def test_a_start_whose_commit_answer_was_lost_starts_once(world: World, made: bool) -> None:
    (world.store.after if made else world.store.before).append(CommitUnknown("cut off"))
    task = world.starting("a")
    await world.advance(1)
    await task
    assert world.transport.sent == ["a:reserve"]
    assert world.journal("a") == [1]


async def test_a_store_that_is_away_delays_and_loses_nothing(world: World) -> None:
    await world.start("a")
    world.store.before.extend([Retryable("away")] * 10)
    await world.answer("a:reserve", DONE)
    await world.advance(0.1)
    assert not world.engine.writer.healthy
    with pytest.raises(Unavailable) as caught:
        await world.start("b")
    assert caught.value.retry_after_ms
    await world.advance(30)
    assert world.transport.sent == ["a:reserve", "a:charge"]
    await world.start("b")


async def test_a_start_that_meets_a_store_that_is_away_is_told_so_and_may_be_repeated(world: World) -> None:
    world.store.before.extend([Retryable("away")] * 4)
    task = world.starting("a")
    await world.advance(0.1)
    with pytest.raises(Unavailable):
        await task
    await world.advance(30)
    assert (await world.start("a")).state is SagaState.RUNNING
    assert world.transport.sent == ["a:reserve"]


async def test_on_a_data_error_the_culprit_is_found_and_the_rest_commit(world: World) -> None:
    tasks = [world.starting(f"s{i}") for i in range(7)]
    bad = world.starting("nul\0")
    await world.settle()
    await asyncio.gather(*tasks)
    with pytest.raises(InvalidArgument):
        await bad


async def test_a_transition_that_the_store_cannot_keep_parks_its_saga_alone(world: World) -> None:
    await world.start("a")
    await world.start("b")
    world.store.before.append(DataRejected("no"))
    await world.answer("a:reserve", DONE)
    await world.answer("b:reserve", DONE)
    saga = await world.saga("a")
    assert (saga.state, saga.incident) == (SagaState.PARKED, ParkingReason.INTERNAL)
    assert "b:charge" in world.transport.sent


async def test_a_row_of_another_epoch_is_dropped_from_memory(world: World) -> None:
    await world.start("a")
    world.database.sagas["default", "a"].row.epoch += 1
    await world.answer("a:reserve", DONE)
    assert ("default", "a") not in world.engine.sagas
    assert world.transport.sent == ["a:reserve"]


async def test_a_repeated_start_returns_the_saga_as_it_is_now(world: World) -> None:
    await world.start("a", 1)
    await world.answer("a:reserve", DONE)
    assert (await world.start("a", 1)).revision == 2
    await world.answer("a:charge", DONE)
    await world.answer("a:ship", DONE)
    assert (await world.start("a", 1)).state is SagaState.SUCCEEDED
    assert world.transport.sent == ["a:reserve", "a:charge", "a:ship"]


async def test_a_start_with_other_content_is_refused(world: World) -> None:
    await world.start("a", 1)
    with pytest.raises(AlreadyExists):
        await world.start("a", 2)
    for call in ("a:reserve", "a:charge", "a:ship"):
        await world.answer(call, DONE)
    with pytest.raises(AlreadyExists):
        await world.start("a", 2)


async def test_a_repeat_is_answered_before_anything_else_is_checked(world: World) -> None:
    await world.start("a", 1)
    await world.store.set_definition_active("default", "order", "1.0.0", active=False)
    world.commands._definitions.refresh()
    assert (await world.start("a", 1)).state is SagaState.RUNNING
    with pytest.raises(FailedPrecondition):
        await world.start("b", 1)


async def test_two_starts_at_once_start_one_saga(world: World) -> None:
    tasks = [world.starting("a") for _ in range(5)]
    await world.settle()
    assert {(await task).saga.revision for task in tasks} == {1}  # type: ignore[union-attr]
    assert world.transport.sent == ["a:reserve"]


async def test_wait_answers_when_the_saga_has_ended(world: World) -> None:
    task = world.starting("a", wait=True)
    await world.settle()
    for call in ("a:reserve", "a:charge"):
        await world.answer(call, DONE)
        assert not task.done()
    await world.answer("a:ship", DONE)
    assert (await task).saga.state is SagaState.SUCCEEDED  # type: ignore[union-attr]


async def test_wait_answers_when_the_saga_is_parked(world: World) -> None:
    task = world.starting("a", wait=True)
    await world.settle()
    await world.answer("a:reserve", DONE)
    await world.answer("a:charge", refused())
    await world.answer("a:-reserve", refused())
    assert (await task).saga.state is SagaState.PARKED  # type: ignore[union-attr]


async def test_a_client_that_leaves_ends_the_wait_and_not_the_saga(world: World) -> None:
    task = world.starting("a", wait=True)
    await world.settle()
    task.cancel()
    for call in ("a:reserve", "a:charge", "a:ship"):
        await world.answer(call, DONE)
    assert (await world.saga("a")).state is SagaState.SUCCEEDED


async def test_a_saga_whose_data_makes_the_engine_raise_is_parked_and_takes_nothing_else_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.start("a")
    await world.start("b")
    waiting = world.starting("a", wait=True)
    await world.settle()
    real = engine_module.write_of

    def poisoned(active: object, *rest: object) -> object:
        if active.key[1] == "a":  # type: ignore[attr-defined]
            raise ZeroDivisionError("poison")
        return real(active, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "write_of", poisoned)
    await world.answer("a:reserve", DONE)
    await world.answer("b:reserve", DONE)
    saga = await world.saga("a")
    assert (saga.state, saga.incident) == (SagaState.PARKED, ParkingReason.INTERNAL)
    assert saga.incident_id
    with pytest.raises(Internal) as caught:
        await waiting
    assert saga.incident_id in caught.value.message
    assert "poison" not in caught.value.message
    assert "b:charge" in world.transport.sent
    monkeypatch.undo()
    task = asyncio.ensure_future(
        world.commands.retry(
            ("default", "a"), revision=saga.revision, step_id="", new_input=None, reason="mended", actor="me"
        )
    )
    await world.settle()
    await task
    assert (await world.saga("a")).steps[0].state is StepState.RUNNING


async def test_too_many_sagas_are_refused_with_a_hint(world: World) -> None:
    object.__setattr__(world.engine.settings, "max_sagas_in_memory", 1)
    await world.start("a")
    with pytest.raises(Exception, match="max_sagas_in_memory"):
        await world.start("b")


async def test_a_call_that_waited_for_the_lease_is_not_sent_when_its_saga_has_ended_meanwhile() -> None:
    world = World(definition(step("reserve", completionTimeout="30s")))
    has = [True]
    world.lease = lambda: has[0]  # type: ignore[method-assign]
    await world.boot()
    await world.start("a")
    token = (await world.answer("a:reserve", Pending())).request.completion_token
    has[0] = False
    await world.advance(31)
    assert world.engine.calls.held == 1
    has[0] = True
    completing = world.commands.complete(("default", "a"), "reserve", token, Success(None), actor="me")
    world.spawn(completing)  # type: ignore[arg-type]  # what it returns does not matter here
    await world.settle()
    world.engine.calls.release()
    assert (world.engine.calls.held, world.transport.sent) == (0, ["a:reserve"])
