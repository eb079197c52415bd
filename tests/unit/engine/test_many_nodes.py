"""Leases, adoption and epochs: two nodes on one database and one virtual clock."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from unittest.mock import AsyncMock

import pytest
from support.definitions import definition, step
from support.play import TIMED_OUT
from support.world import LEASE_S, World

from sagad_server.domain.errors import Elsewhere, Unavailable
from sagad_server.domain.inputs import Success
from sagad_server.domain.states import EventCause, SagaState
from sagad_server.engine.membership import NodeNameTaken
from sagad_server.storage.nodes import Node, NodeState
from sagad_server.storage.rows import Key, LoadedSaga
from sagad_server.storage.store import Retryable

DONE = Success(None)
SLOW = {"initialBackoff": "110s", "maxBackoff": "110s"}
"""With this world's jitter 55 s: almost long enough to leave memory."""
ORDER = definition(step("reserve"), step("charge"))


async def two(*definitions: object) -> tuple[World, World]:
    first = World(*(definitions or (ORDER,)))  # type: ignore[arg-type]
    first.renews = True
    second = World(*first._messages, name="n2", beside=first)
    await first.boot()
    await second.boot()
    return first, second


async def freeze(world: World) -> None:
    """It does nothing more, and thinks that it lives."""
    for task in world._tasks:
        task.cancel()
    await asyncio.gather(*world._tasks, return_exceptions=True)
    world._tasks.clear()


async def test_a_dead_nodes_sagas_are_adopted_once_its_lease_is_over() -> None:
    first, second = await two()
    await first.start("a")
    lost = first.transport.take("a:reserve")
    await first.die()
    await second.advance(LEASE_S * 0.9)
    assert second.transport.sent == [], "it may still live"
    await second.advance(LEASE_S)
    again = second.transport.take("a:reserve")
    assert again.request.idempotency_key == lost.request.idempotency_key
    assert again.request.fencing_token == lost.request.fencing_token + 1


async def test_a_node_that_lives_keeps_its_sagas() -> None:
    first, second = await two()
    await first.start("a")
    await second.advance(LEASE_S * 10)
    assert second.transport.sent == []
    await first.answer("a:reserve", DONE)
    assert first.transport.sent[-1] == "a:charge"


async def test_a_restart_under_the_same_name_moves_sagas_at_once() -> None:
    first, second = await two()
    await first.start("a")
    await first.die()
    await first.boot()
    await first.advance(0.1)
    assert first.transport.sent == ["a:reserve"]
    assert second.transport.sent == []


async def test_a_node_that_cannot_renew_starts_no_call_past_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await two()
    await freeze(second)
    await first.start("a")

    async def away() -> bool:
        raise Unavailable("away")

    monkeypatch.setattr(first.store, "renew", away)
    await first.advance(LEASE_S + 1)
    await first.answer("a:reserve", DONE)
    assert first.transport.sent == ["a:reserve"], "durable, and not sent"
    with pytest.raises(Unavailable):
        await first.start("b")
    monkeypatch.undo()
    await first.advance(LEASE_S)
    assert first.transport.sent == ["a:reserve", "a:charge"]


async def test_a_call_that_is_still_queued_may_not_start_once_another_node_drives_its_saga() -> None:
    first, second = await two()
    await first.start("a")
    queued = first.transport.take("a:reserve")
    assert queued.may_start(queued)
    await freeze(first)
    await second.advance(LEASE_S * 2)
    assert not queued.may_start(queued), "past the lease"
    await second.answer("a:reserve", DONE)
    first.spawn(first.membership.run(first.recovery))  # it wakes up, finds itself dead, and registers anew
    await first.advance(LEASE_S)
    assert first.membership.holds_lease
    assert not queued.may_start(queued)


async def test_an_answer_is_not_taken_for_one_to_a_start_whose_id_is_taken() -> None:
    first, _ = await two()
    await first.start("a")
    late = first.transport.take("a:reserve")
    first.engine.drop_all()
    repeated = first.starting("a")
    while ("default", "a") not in first.engine.sagas:  # noqa: ASYNC110 - a turn or two
        await asyncio.sleep(0)
    started = first.engine.sagas["default", "a"]
    assert started.saga.revision == 0
    assert not late.may_start(late)
    late.on_outcome(late, DONE)
    assert not started.waiting
    await first.settle()
    assert (await repeated).saga.revision == 1


async def test_what_is_seen_while_the_database_is_away_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await two()
    await freeze(first)
    await second.advance(LEASE_S * 0.8)

    async def away() -> bool:
        raise Unavailable("away")

    monkeypatch.setattr(second.store, "renew", away)
    await second.advance(LEASE_S * 5)
    monkeypatch.undo()
    await second.advance(LEASE_S * 0.8)
    assert next(iter(first.database.nodes.values())).state == NodeState.LIVE


async def test_a_node_that_finds_itself_dead_drops_everything_and_registers_anew() -> None:
    first, second = await two()
    await first.start("a")
    waiting = first.starting("a", wait=True)
    await first.settle()
    old = first.membership.instance_id
    await first.store.declare_dead(old, first.database.nodes[old].lease)
    await first.advance(LEASE_S)
    assert first.membership.instance_id != old
    with pytest.raises(Unavailable):
        await waiting
    owner = first.database.sagas["default", "a"].row.owner
    assert owner in {first.membership.instance_id, second.membership.instance_id}
    assert first.database.sagas["default", "a"].row.epoch == 2


async def test_a_frozen_node_that_wakes_changes_nothing() -> None:
    first, second = await two()
    await first.start("a")
    lost = first.transport.take("a:reserve")
    await freeze(first)
    await second.advance(LEASE_S * 2)
    await second.answer("a:reserve", DONE)
    first.spawn(first.engine.writer.run())
    lost.on_outcome(lost, DONE)  # the answer of before, into the memory of before
    await first.settle()
    assert first.transport.sent == ["a:reserve"]
    assert first.journal("a") == list(range(1, len(first.journal("a")) + 1))
    assert ("default", "a") not in first.engine.sagas
    await second.answer("a:charge", DONE)
    assert (await second.saga("a")).state is SagaState.SUCCEEDED


async def test_two_processes_of_one_name_do_not_take_turns() -> None:
    first = World(ORDER)
    first.renews = True
    second = World(ORDER, beside=first)  # the same name
    await first.boot()
    await second.boot()
    await second.advance(LEASE_S * 2)
    failed = [task for task in first._tasks if task.done() and task.exception()]
    assert [type(task.exception()) for task in failed] == [NodeNameTaken]
    first._tasks = [task for task in first._tasks if task not in failed]


async def test_a_node_whose_own_row_a_fail_over_has_lost_takes_its_predecessor_for_dead() -> None:
    world = World(ORDER)
    world.renews = True
    await world.boot()
    before = dict(world.database.nodes)
    await world.die()
    await world.boot()
    await world.start("a")
    lost = world.transport.take("a:reserve")
    world.database.nodes.clear()
    for instance_id, row in before.items():  # as a standby has it that was behind
        world.database.nodes[instance_id] = replace(row, state=NodeState.LIVE)
    await world.advance(LEASE_S * 2)
    again = world.transport.take("a:reserve")
    assert again.request.idempotency_key == lost.request.idempotency_key
    assert world.membership.holds_lease


async def test_a_request_about_a_saga_of_another_node_says_whose_it_is() -> None:
    first, second = await two()
    await first.start("a")
    with pytest.raises(Elsewhere) as caught:
        await second.commands.compensate(("default", "a"), reason="", actor="")
    assert caught.value.owner == first.membership.instance_id
    assert (await second.saga("a")).revision == 1, "every node can read"


async def test_a_repeated_start_at_another_node_starts_nothing() -> None:
    first, second = await two()
    await first.start("a", 1)
    again = second.starting("a", 1)
    await second.settle()
    await again
    assert second.transport.sent == []


async def test_a_node_that_joins_gets_its_share_of_what_only_waits() -> None:
    first = World(definition(step("one", retry=SLOW)))
    first.renews = True
    await first.boot()
    for i in range(200):
        await first.start(f"s{i}")
    for i in range(200):
        call = first.transport.take(f"s{i}:one")
        call.on_outcome(call, TIMED_OUT)
    await first.settle()
    await first.advance(1)
    second = World(*first._messages, name="n2", beside=first)
    await second.boot()
    await second.advance(30)
    assert 50 <= len(second.engine.sagas) <= 150
    assert len(first.engine.sagas) + len(second.engine.sagas) == 200
    assert first.transport.sent == [f"s{i}:one" for i in range(200)]
    assert second.transport.sent == []
    await second.advance(700)
    assert len(first.transport.sent) + len(second.transport.sent) == 400, "each wait goes on at one node"


async def test_what_may_have_been_handed_back_is_given_up_where_the_answer_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(definition(step("one", retry=SLOW)))
    await world.boot()
    await world.start("a")
    await world.answer("a:one", TIMED_OUT)
    real = world.store.hand_back

    async def lost(keys: Mapping[Key, tuple[int, int]]) -> set[Key]:
        await real(keys)
        raise Unavailable("the answer is lost")

    monkeypatch.setattr(world.store, "hand_back", lost)
    with pytest.raises(Unavailable):
        await world.engine.hand_back(1)
    assert world.engine.sagas == {}
    await world.advance(10)
    assert ("default", "a") in world.engine.sagas, "nobody else has claimed it"


async def test_a_clean_end_hands_everything_over_at_once() -> None:
    first, second = await two()
    await first.start("a")
    await first.store.close()
    await second.advance(4)
    assert second.transport.sent == ["a:reserve"]


async def declare_dead(world: World) -> None:
    instance_id = world.membership.instance_id
    await world.store.declare_dead(instance_id, world.database.nodes[instance_id].lease)


async def test_a_batch_that_is_sent_again_and_again_ends_with_the_registration_it_was_made_under() -> None:
    first = World(ORDER)
    first.renews = True
    await first.boot()
    await first.start("a")
    first.store.before = [Retryable("away") for _ in range(100)]
    await first.answer("a:reserve", DONE)
    first.store.claim = AsyncMock(return_value=[])  # type: ignore[method-assign] # it comes later than the batch
    await declare_dead(first)
    old = first.membership.instance_id
    while first.membership.instance_id == old:
        await first.advance(0.1)
    first.store.before.clear()
    await first.advance(1.5)
    assert first.journal("a") == [1]
    del first.store.claim
    saga = first.database.sagas["default", "a"]
    await first.advance(LEASE_S)
    assert saga.row.owner == first.membership.instance_id
    assert [event.cause for event in saga.events] == [EventCause.STARTED, EventCause.RECOVERED]
    assert first.recovery.stranded == 0
    assert first.engine.writer.idle


async def test_what_was_claimed_before_a_node_was_declared_dead_is_not_driven_after_that() -> None:
    first, second = await two()
    await first.start("a")
    asked = asyncio.Event()
    claim = second.store.claim

    async def slow(limit: int, exclude: Collection[Key]) -> list[LoadedSaga]:
        claimed = await claim(limit, exclude)
        if claimed:
            second.store.claim = claim  # type: ignore[method-assign]
            await asked.wait()
        return claimed

    second.store.claim = slow  # type: ignore[method-assign]
    await first.die()
    await second.advance(LEASE_S * 2)
    await declare_dead(second)
    await second.advance(LEASE_S / 2)
    asked.set()
    await second.settle()
    assert second.transport.sent == ["a:reserve"]
    assert second.transport.take("a:reserve").request.fencing_token == 3, "claimed anew, not driven as it was"


async def test_a_node_that_was_declared_dead_claims_nothing_until_it_is_registered_anew() -> None:
    first = World(ORDER)
    first.renews = True
    await first.boot()
    await first.start("a")
    answered = asyncio.Event()
    register = first.store.register

    async def slow() -> Node:
        await answered.wait()
        return await register()

    first.store.register = slow  # type: ignore[method-assign]
    await declare_dead(first)
    await first.advance(LEASE_S)
    assert first.database.sagas["default", "a"].row.epoch == 1
    answered.set()
    await first.advance(LEASE_S)
    row = first.database.sagas["default", "a"].row
    assert (row.owner, row.epoch) == (first.membership.instance_id, 2)


async def test_a_node_whose_registration_was_not_answered_does_not_take_itself_for_another() -> None:
    first = World(ORDER)
    first.renews = True
    await first.boot()
    await first.start("a")
    register = first.store.register

    async def cut_off() -> Node:
        first.store.register = register  # type: ignore[method-assign]
        instance_id = first.store._instance_id
        await register()
        first.store._instance_id = instance_id
        raise Unavailable("the answer is lost")

    first.store.register = cut_off  # type: ignore[method-assign]
    await declare_dead(first)
    await first.advance(LEASE_S * 2)
    assert first.database.sagas["default", "a"].row.owner == first.membership.instance_id
    assert first.membership.holds_lease
