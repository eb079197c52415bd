"""How nodes know each other: open, register, announce, renew, nodes, declare_dead, hand_back and count_owned."""

import pytest
from support.storage import Backend, end, key, start, step

from sagad_server.domain.errors import Unavailable
from sagad_server.storage.nodes import NodeRow, NodeState
from sagad_server.storage.store import Store


async def row_of(store: Store, node_name: str) -> NodeRow:
    return max((row for row in await store.nodes() if row.node_name == node_name), key=lambda row: row.incarnation)


async def test_many_nodes_serve_one_database_and_see_each_other(backend: Backend) -> None:
    first = backend.store
    await first.announce("one:7400")
    await backend.commit(start("a"))
    second, node = await backend.open("other")
    await second.announce("two:7400")
    await backend.commit(start("b"))

    rows = {row.node_name: row for row in await first.nodes()}

    assert {name: (row.state, row.address) for name, row in rows.items()} == {
        "node": (NodeState.LIVE, "one:7400"),
        "other": (NodeState.LIVE, "two:7400"),
    }
    assert rows["other"].instance_id == node.instance_id


async def test_a_start_under_the_same_name_declares_the_one_before_dead_at_once(backend: Backend) -> None:
    old = backend.store
    await old.mark_loading([key("a")])
    _, node = await backend.open()

    assert node.suspects == [key("a")]
    assert not await old.renew()


async def test_a_renewal_lets_the_lease_grow_until_somebody_declares_the_node_dead(backend: Backend) -> None:
    first = backend.store
    second, _ = await backend.open("other")
    before = await row_of(second, "node")
    assert await first.renew()
    after = await row_of(second, "node")
    assert after.lease > before.lease

    assert await second.declare_dead(after.instance_id, before.lease) is None, "it has renewed since"
    await first.mark_loading([key("a"), key("b")])
    assert await second.declare_dead(after.instance_id, after.lease) == [key("a"), key("b")]

    assert await second.declare_dead(after.instance_id, after.lease) is None, "once"
    assert not await first.renew()
    assert (await row_of(second, "node")).state == NodeState.DEAD


async def test_a_node_that_registers_anew_writes_as_another_instance_and_keeps_its_address(backend: Backend) -> None:
    store, old = backend.store, backend.node
    await store.announce("one:7400")
    await backend.commit(start("a"))

    new = await store.register()

    assert new.instance_id != old.instance_id
    assert new.incarnation == old.incarnation + 1
    assert (await row_of(store, "node")).address == "one:7400"
    await backend.commit(start("b"))
    assert (await backend.load("a")).row.owner == old.instance_id
    assert (await backend.load("b")).row.owner == new.instance_id
    assert [loaded.row.saga_id for loaded in await store.claim(10, [])] == ["a"]


async def test_the_sagas_of_live_nodes_are_not_claimed(backend: Backend) -> None:
    await backend.commit(start("a"))
    second, _ = await backend.open("other")

    assert await second.claim(10, []) == []
    assert await second.claim_one(key("a")) is None


async def test_the_sagas_of_all_dead_nodes_are_claimed_up_to_the_limit(backend: Backend) -> None:
    for number in range(3):
        await backend.commit(start(f"{number}a"), start(f"{number}b"))
        await backend.restart(f"node {number}")
    for row in await backend.store.nodes():
        if row.instance_id != backend.node.instance_id:
            await backend.store.declare_dead(row.instance_id, row.lease)

    first = await backend.store.claim(4, [])
    second = await backend.store.claim(4, [])

    assert (len(first), len(second)) == (4, 2)
    assert {loaded.row.saga_id for loaded in first + second} == {f"{n}{x}" for n in range(3) for x in "ab"}


async def test_after_close_others_may_claim_at_once(backend: Backend) -> None:
    await backend.commit(start("a"))
    first = backend.store
    second, _ = await backend.open("other")
    await first.close()

    assert [loaded.row.saga_id for loaded in await second.claim(10, [])] == ["a"]
    with pytest.raises(Unavailable):
        await first.renew()


async def test_what_is_handed_back_is_claimed_by_any_node(backend: Backend) -> None:
    await backend.commit(start("a"), start("b"), start("c"), start("d"))
    await backend.commit(step("d", 2))  # it has moved on since it was to be handed back
    first = backend.store
    second, _ = await backend.open("other")

    given = await first.hand_back({key("a"): (1, 1), key("b"): (7, 1), key("x"): (1, 1), key("d"): (1, 1)})

    assert given == {key("a")}
    claimed = await second.claim(10, [])
    assert [(loaded.row.saga_id, loaded.row.epoch) for loaded in claimed] == [("a", 2)]


async def test_moving_sagas_are_counted_for_each_live_node(backend: Backend) -> None:
    await backend.commit(start("a"), start("b"), start("c"))
    await backend.commit(end("c", 2))
    first = backend.node
    store, second = await backend.open("other")

    assert await store.count_owned() == {first.instance_id: 2, second.instance_id: 0}
