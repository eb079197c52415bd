"""Resource locks: no two sagas at once, in fair order, over crashes and take-overs."""

from collections.abc import Sequence

import pytest
from support.definitions import definition, step
from support.play import refused
from support.world import Death, World, name

from sagad_server.domain.errors import InvalidArgument
from sagad_server.domain.inputs import Pending, Success
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import EventCause, SagaState, StepState
from sagad_server.engine import locks
from sagad_server.storage.locks import Holder, LockId
from sagad_server.storage.store import CommitUnknown, Retryable

DONE = Success(None)
ONE = definition(step("reserve"), locks=["'order/' + input.order"])
TWO = definition(step("reserve"), locks=["'b/' + input.b", "'a/' + input.a"])


async def booted(message: object = ONE, **more: object) -> World:
    world = World(message, **more)  # type: ignore[arg-type]  # one of the two above
    await world.boot()
    return world


def calls(world: World) -> list[str]:
    return [name(call) for call in world.transport.calls]


async def test_a_free_lock_is_taken_in_the_write_that_starts_the_saga() -> None:
    world = await booted()
    saga = await world.start("a", {"order": "1"})
    assert world.store.commits == 1
    call = world.transport.take("a:reserve")
    assert dict(call.request.lock_tokens) == {"order/1": 1}
    assert saga.locks == ("order/1",)


async def test_nobody_is_called_for_a_saga_whose_lock_another_holds() -> None:
    world = await booted()
    await world.start("a", {"order": "1"})
    waiting = await world.start("b", {"order": "1"})
    await world.start("c", {"order": "2"})
    assert calls(world) == ["a:reserve", "c:reserve"]
    assert (waiting.state, waiting.waits_for_lock) == (SagaState.RUNNING, "order/1")


async def test_a_lock_passes_on_when_its_holder_has_ended_and_tokens_grow() -> None:
    world = await booted()
    tokens = []
    for saga_id in "abcd":
        await world.start(saga_id, {"order": "1"})
    for saga_id in "abcd":
        assert calls(world) == [f"{saga_id}:reserve"]
        call = await world.answer(f"{saga_id}:reserve", DONE)
        tokens.append(call.request.lock_tokens["order/1"])
    assert tokens == sorted(set(tokens))
    assert world.database.locks.all() == {}


async def test_locks_are_taken_one_by_one_in_the_order_of_their_names() -> None:
    world = await booted(TWO)
    await world.start("x", {"a": "1", "b": "1"})
    await world.start("y", {"a": "1", "b": "2"})
    await world.start("z", {"a": "2", "b": "2"})  # y waits for a/1 and has not asked for b/2 yet
    assert calls(world) == ["x:reserve", "z:reserve"]
    await world.answer("x:reserve", DONE)
    saga = await world.saga("y")
    assert (dict(saga.lock_tokens).keys(), saga.waits_for_lock) == ({"a/1"}, "b/2")
    assert calls(world) == ["z:reserve"]
    await world.answer("z:reserve", DONE)
    assert sorted(world.transport.take("y:reserve").request.lock_tokens) == ["a/1", "b/2"]


async def test_a_saga_never_takes_some_of_its_locks_past_one_who_waits() -> None:
    world = await booted(TWO)
    await world.start("x", {"a": "1", "b": "1"})
    await world.start("y", {"a": "1", "b": "2"})
    await world.start("z", {"a": "1", "b": "3"})
    await world.answer("x:reserve", DONE)
    assert calls(world) == ["y:reserve"]
    await world.answer("y:reserve", DONE)
    assert calls(world) == ["z:reserve"]


async def test_two_expressions_of_one_name_are_one_lock() -> None:
    world = await booted(definition(step("reserve"), locks=["'x/' + input.a", "'x/' + input.b"]))
    saga = await world.start("a", {"a": "1", "b": "1"})
    assert saga.locks == ("x/1",)


async def test_the_deadline_ends_a_saga_that_waits_and_nobody_was_called() -> None:
    world = await booted()
    await world.start("a", {"order": "1"})
    await world.start("b", {"order": "1"}, timeout_ms=5_000)
    await world.start("c", {"order": "1"})
    await world.advance(6)
    saga = await world.saga("b")
    assert saga.state is SagaState.COMPENSATED
    assert saga.failure is not None
    assert "waiting for lock 'order/1'" in saga.failure.message
    await world.answer("a:reserve", DONE)
    assert calls(world) == ["c:reserve"]
    assert "b:reserve" not in world.transport.sent


async def test_a_saga_that_waits_can_be_compensated_and_leaves_the_queue() -> None:
    world = await booted()
    await world.start("a", {"order": "1"})
    await world.start("b", {"order": "1"})
    asked = world.commands.compensate(("default", "b"), reason="no", actor="me")
    world.spawn(asked)  # type: ignore[arg-type]  # what it returns does not matter here
    await world.settle()
    assert (await world.saga("b")).state is SagaState.COMPENSATED
    assert [row.saga_id for row in world.database.locks.all()["default", "order/1"]] == ["a"]


async def test_a_saga_that_fails_holds_its_lock_until_it_is_compensated() -> None:
    world = await booted(definition(step("reserve"), step("charge"), locks=["'order/' + input.order"]))
    await world.start("a", {"order": "1"})
    await world.start("b", {"order": "1"})
    await world.answer("a:reserve", DONE)
    await world.answer("a:charge", refused())
    assert calls(world) == ["a:-reserve"]
    assert dict(world.transport.calls[0].request.lock_tokens) == {"order/1": 1}
    await world.answer("a:-reserve", DONE)
    assert calls(world) == ["b:reserve"]


async def parked(world: World) -> Saga:
    await world.start("a", {"order": "1"})
    await world.start("b", {"order": "1"})
    await world.answer("a:reserve", DONE)
    await world.answer("a:charge", refused())
    await world.answer("a:-reserve", refused())
    saga = await world.saga("a")
    assert saga.state is SagaState.PARKED
    return saga


async def test_a_parked_saga_keeps_its_lock_and_abandoning_it_frees_the_lock() -> None:
    world = await booted(definition(step("reserve"), step("charge"), locks=["'order/' + input.order"]))
    saga = await parked(world)
    await world.advance(5)
    assert calls(world) == []
    answer = world.commands.abandon(("default", "a"), revision=saga.revision, reason="lost", actor="me")
    world.spawn(answer)  # type: ignore[arg-type]
    await world.settle()
    assert calls(world) == ["b:reserve"]


async def test_a_lock_name_that_is_none_is_refused_before_anything_is_written() -> None:
    world = await booted(definition(step("reserve"), locks=["input.order", "'x' + input.none", "input.empty"]))
    with pytest.raises(InvalidArgument) as caught:
        await world.start("a", {"order": 1, "empty": ""})
    assert len(caught.value.violations) == 3
    assert world.store.commits == 0


async def test_a_repeat_is_answered_though_the_definition_of_today_finds_no_name_in_it() -> None:
    world = await booted(definition(step("reserve")))
    await world.start("a", {})
    await world.answer("a:reserve", DONE)
    second = definition(step("reserve"), version="2.0.0", locks=["input.order"])
    await world.die()
    world._messages = (second,)
    await world.boot()
    assert (await world.start("a", {})).state is SagaState.SUCCEEDED


async def test_a_succeeded_saga_takes_its_locks_again_before_it_is_undone() -> None:
    world = await booted()
    await world.start("a", {"order": "1"})
    first = (await world.answer("a:reserve", DONE)).request.lock_tokens["order/1"]
    await world.start("b", {"order": "1"})
    asked = world.commands.compensate(("default", "a"), reason="returned", actor="me")
    world.spawn(asked)  # type: ignore[arg-type]
    await world.settle()
    saga = await world.saga("a")
    assert (saga.state, saga.waits_for_lock) == (SagaState.COMPENSATING, "order/1")
    assert calls(world) == ["b:reserve"]
    await world.answer("b:reserve", DONE)
    await world.settle()
    again = world.transport.take("a:-reserve").request.lock_tokens["order/1"]
    assert again > first


async def test_locks_and_queue_outlive_the_node() -> None:
    world = await booted()
    await world.start("a", {"order": "1"})
    await world.start("b", {"order": "1"})
    await world.die()
    await world.boot()
    await world.advance(5)
    assert calls(world) == ["a:reserve"]
    assert dict(world.transport.calls[0].request.lock_tokens) == {"order/1": 1}
    await world.answer("a:reserve", DONE)
    assert calls(world) == ["b:reserve"]


async def test_a_lock_granted_to_a_node_that_dies_at_once_is_found_by_the_next() -> None:
    world = await booted()
    await world.start("a", {"order": "1"})
    await world.start("b", {"order": "1"})
    world.store.after = [Death()]  # the end of a is durable, and nothing is done about it
    taken = world.transport.take("a:reserve")
    taken.on_outcome(taken, DONE)
    await world.settle()
    await world.die()
    await world.store.open("other")
    granted = await world.store.grant([("default", "order/1")])
    assert [holder.saga_id for holder in granted] == ["b"]
    world.store.die()
    await world.boot()
    await world.advance(5)
    assert calls(world) == ["b:reserve"]
    assert (await world.saga("b")).lock_tokens == {"order/1": granted[0].fencing_token}


async def test_a_lost_answer_to_a_start_loses_no_lock() -> None:
    world = await booted()
    world.store.after = [CommitUnknown("lost")]
    task = world.starting("a", {"order": "1"})
    await world.advance(2)
    await task
    assert dict(world.transport.take("a:reserve").request.lock_tokens) == {"order/1": 1}


async def test_a_start_that_is_held_up_while_the_store_is_away_still_queues() -> None:
    world = await booted()
    world.store.before = [Retryable("away"), Retryable("away")]
    first, second = world.starting("a", {"order": "1"}), world.starting("b", {"order": "1"})
    await world.advance(5)
    assert not first.done() or first.exception()
    assert not second.done() or second.exception()
    assert calls(world) == ["a:reserve"]
    await world.answer("a:reserve", DONE)
    assert calls(world) == ["b:reserve"]


async def test_two_nodes_share_a_lock_and_the_other_one_looks_for_it_by_itself() -> None:
    one = await booted()
    other = World(ONE, name="n2", beside=one)
    await other.boot()
    await one.start("a", {"order": "1"})
    await other.start("b", {"order": "1"})
    assert other.database.sagas["default", "b"].row.revision == 1
    assert calls(other) == []
    await one.answer("a:reserve", DONE)
    await other.advance(1)
    assert calls(other) == ["b:reserve"]


def looks(world: World, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the node asks the store about locks."""
    times: list[float] = []
    grant = world.store.grant

    async def noted(locks: Sequence[LockId]) -> list[Holder]:
        times.append(world.clock.now_s)
        return await grant(locks)

    monkeypatch.setattr(world.store, "grant", noted)
    return times


async def test_a_node_that_is_told_by_others_looks_seldom_and_a_lost_message_costs_no_more_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = World(ONE)
    one.renews = True  # it is not to be taken for dead
    await one.boot()
    other = World(ONE, name="n2", beside=one)
    await other.boot()
    other.engine.locks.told = lambda: True
    await one.start("a", {"order": "1"})
    await other.start("b", {"order": "1"})
    await other.advance(4)
    seen = looks(other, monkeypatch)
    await other.advance(30)
    assert 8 <= len(seen) <= 30 / locks._LOOK_WHEN_TOLD_S + 1
    await one.answer("a:reserve", DONE)  # and nobody tells of it
    await other.advance(locks._LOOK_WHEN_TOLD_S + locks._LOOK_EVERY_S)
    assert calls(other) == ["b:reserve"]


async def test_a_node_that_is_told_no_more_looks_as_often_as_one_that_never_was() -> None:
    one = await booted()
    other = World(ONE, name="n2", beside=one)
    await other.boot()
    told = [True]
    other.engine.locks.told = lambda: told[0]
    await one.start("a", {"order": "1"})
    await other.start("b", {"order": "1"})
    await other.advance(1)
    await one.answer("a:reserve", DONE)
    told[0] = False
    await other.advance(2 * locks._LOOK_EVERY_S)
    assert calls(other) == ["b:reserve"]


async def test_who_queues_while_the_lock_is_given_back_looks_soon_though_others_tell() -> None:
    """The write that gives it back has begun before the wait, and ends after the first look: nobody tells."""
    one = await booted()
    other = World(ONE, name="n2", beside=one)
    await other.boot()
    other.engine.locks.told = lambda: True
    await one.start("z", {"order": "2"})
    await other.start("y", {"order": "2"})
    await other.advance(1)  # it has looked for all, and the next time is some way off
    await one.start("a", {"order": "1"})
    await other.start("b", {"order": "1"})
    await one.answer("a:reserve", DONE)
    await other.advance(2 * locks._LOOK_EVERY_S)
    assert calls(other) == ["b:reserve"]


async def test_the_end_of_a_saga_asks_nothing_where_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await booted()
    seen = looks(world, monkeypatch)
    for saga_id in "abc":
        await world.start(saga_id, {"order": "1"})
        await world.answer(f"{saga_id}:reserve", DONE)
    await world.advance(5)
    assert seen == []


async def test_what_passes_to_a_saga_of_another_node_is_told_and_whoever_is_told_looks_at_once() -> None:
    one = await booted()
    other = World(ONE, name="n2", beside=one)
    await other.boot()
    one.engine.locks.on_passed = other.engine.locks.wake
    await one.start("a", {"order": "1"})
    await other.start("b", {"order": "1"})
    await other.advance(0.3)  # it has looked, and the next time is some way off
    await one.answer("a:reserve", DONE)
    await other.settle()
    assert calls(other) == ["b:reserve"]


async def test_an_answer_of_the_store_from_before_a_wait_does_not_end_it() -> None:
    """A saga held the lock, has ended, and waits for it again: that it held it once says nothing."""
    world = await booted()
    await world.start("a", {"order": "1"})
    stale = await world.store.grant([("default", "order/1")])
    await world.answer("a:reserve", DONE)
    await world.start("b", {"order": "1"})
    known = world.engine.locks._waits
    asked = world.commands.compensate(("default", "a"), reason="returned", actor="me")
    world.spawn(asked)  # type: ignore[arg-type]
    await world.settle()
    world.engine.locks._tell(stale, known)
    await world.settle()
    assert calls(world) == ["b:reserve"]


async def test_each_wait_and_grant_is_an_event() -> None:
    world = await booted()
    await world.start("a", {"order": "1"})
    await world.start("b", {"order": "1"})
    await world.answer("a:reserve", DONE)
    causes = [event.cause for event in world.database.sagas["default", "b"].events]
    assert causes == [EventCause.STARTED, EventCause.LOCK_GRANTED]


async def test_a_saga_that_waits_long_stays_in_memory_and_asks_for_no_call() -> None:
    world = await booted(definition(step("reserve", completionTimeout="3600s"), locks=["'order/' + input.order"]))
    await world.start("a", {"order": "1"})
    await world.answer("a:reserve", Pending())
    await world.start("b", {"order": "1"})
    await world.advance(600)
    assert ("default", "a") not in world.engine.sagas  # it sleeps, and holds the lock
    assert ("default", "b") in world.engine.sagas
    assert (await world.saga("b")).steps[0].state is StepState.NOT_STARTED
    await world.advance(3300)
    await world.answer("a:reserve", DONE)
    assert calls(world) == ["b:reserve"]
