"""How sagas change hands: Store.open, claim, claim_one, mark_loading, count_crash, park and stranded."""

from datetime import timedelta
from itertools import chain

import pytest
from support.storage import Backend, batch, end, key, start, step

from sagad_server.domain.states import EventCause, ParkingReason, SagaState
from sagad_server.storage.rows import Key, LoadedSaga


def ids(sagas: list[LoadedSaga]) -> list[str]:
    return sorted(loaded.row.saga_id for loaded in sagas)


async def test_each_start_is_a_new_incarnation_of_its_node(backend: Backend) -> None:
    first = backend.node
    _, second = await backend.restart()
    _, other = await backend.restart("other node")
    _, third = await backend.restart()

    assert [first.incarnation, second.incarnation, third.incarnation] == [1, 2, 3]
    assert (other.node_name, other.incarnation) == ("other node", 1)
    assert len({first.instance_id, second.instance_id, third.instance_id}) == 3


async def test_the_successor_takes_over_what_moves_with_the_next_epoch_and_its_whole_journal(backend: Backend) -> None:
    states = {"run": SagaState.RUNNING, "back": SagaState.COMPENSATING, "parked": SagaState.PARKED}
    await backend.commit(*(start(saga) for saga in (*states, "done")))
    await backend.commit(*(step(saga, 2, state=state) for saga, state in states.items()), end("done", 2))
    store, node = await backend.restart()

    claimed = await store.claim(10, [])

    assert ids(claimed) == ["back", "run"]
    for loaded in claimed:
        assert (loaded.row.epoch, loaded.row.owner, loaded.row.revision) == (2, node.instance_id, 2)
        assert [event.body for event in loaded.events] == [b"event 1", b"event 2"]
        assert loaded.now >= loaded.row.update_time
        assert loaded.row == (await backend.load(loaded.row.saga_id)).row


async def test_the_predecessor_can_write_no_longer(backend: Backend) -> None:
    await backend.commit(start("a"))
    store, _ = await backend.restart()
    await store.claim(10, [])

    committed = await store.commit(batch(step("a", 2, guard_epoch=1)))

    assert committed.keys == set()
    await backend.commit(step("a", 2, guard_epoch=2))


async def test_a_claim_takes_at_most_its_limit_and_the_next_one_the_rest(backend: Backend) -> None:
    await backend.commit(*(start(f"{n}") for n in range(5)))
    store, _ = await backend.restart()

    parts = [ids(await store.claim(2, [])) for _ in range(4)]

    assert [len(part) for part in parts] == [2, 2, 1, 0]
    assert sorted(chain.from_iterable(parts)) == ["0", "1", "2", "3", "4"]


async def test_a_claim_leaves_what_is_excluded(backend: Backend) -> None:
    await backend.commit(start("a"), start("b"), start("c"))
    store, _ = await backend.restart()

    assert ids(await store.claim(10, [key("a"), key("c", "elsewhere")])) == ["b", "c"]


async def test_a_claim_leaves_what_this_node_owns(backend: Backend) -> None:
    await backend.commit(start("a"))

    assert await backend.store.claim(10, []) == []
    assert await backend.store.claim_one(key("a")) is None


async def test_released_sagas_are_claimed_at_once_and_sleepers_when_they_are_due(backend: Backend) -> None:
    await backend.commit(
        start("now", release=True),
        start("in a minute", release=True, wake_after_ms=60_000),
        start("in two", release=True, wake_after_ms=120_000),
    )

    assert ids(await backend.store.claim(10, [])) == ["now"]
    assert await backend.store.wake(10) == []
    await backend.age(timedelta(seconds=61))
    assert await backend.store.claim(10, []) == []
    assert ids(await backend.store.wake(10)) == ["in a minute"]
    assert await backend.store.wake(10) == [], "it is taken"


async def test_those_that_have_overslept_most_wake_first_with_the_next_epoch(backend: Backend) -> None:
    sleepers = {"b": 90_000, "a": 120_000, "c": 60_000}
    await backend.commit(*(start(saga, release=True, wake_after_ms=ms) for saga, ms in sleepers.items()))
    await backend.age(timedelta(seconds=121))

    batches = [ids(await backend.store.wake(2)) for _ in range(3)]

    assert batches == [["b", "c"], ["a"], []]
    row = (await backend.load("c")).row
    assert (row.epoch, row.owner, row.revision) == (2, backend.node.instance_id, 1)


async def test_a_node_that_dies_leaves_its_sleepers_asleep(backend: Backend) -> None:
    await backend.commit(start("a", release=True, wake_after_ms=60_000), start("b"))
    store, node = await backend.restart()

    assert ids(await store.claim(10, [])) == ["b"]
    assert await store.stranded() == [key("b")]
    assert await store.count_owned() == {node.instance_id: 1}


async def test_a_sleeper_is_taken_over_by_the_write_that_a_command_makes(backend: Backend) -> None:
    await backend.commit(start("a", release=True, wake_after_ms=60_000))

    await backend.commit(step("a", 2, epoch=2))

    await backend.age(timedelta(seconds=61))
    assert await backend.store.wake(10) == []
    assert (await backend.load("a")).row.owner == backend.node.instance_id


async def test_a_released_saga_that_was_claimed_and_moved_is_an_ordinary_one(backend: Backend) -> None:
    await backend.commit(start("a", release=True, wake_after_ms=3_600_000))
    await backend.store.claim_one(key("a"))
    await backend.commit(step("a", 2, guard_epoch=2, release=True))

    assert ids(await backend.store.claim(10, [])) == ["a"]


async def test_claim_one_takes_a_saga_that_moves_whether_due_or_not(backend: Backend) -> None:
    await backend.commit(start("asleep", release=True, wake_after_ms=3_600_000), start("done"))
    await backend.commit(end("done", 2))

    loaded = await backend.store.claim_one(key("asleep"))

    assert loaded is not None
    assert (loaded.row.epoch, loaded.row.owner, len(loaded.events)) == (2, backend.node.instance_id, 1)
    assert await backend.store.claim_one(key("done")) is None
    assert await backend.store.claim_one(key("missing")) is None


async def test_what_a_node_was_loading_when_it_died_are_its_successors_suspects(backend: Backend) -> None:
    await backend.store.mark_loading([key("z")])
    await backend.store.mark_loading([key("a"), ("other", "b")])

    _, node = await backend.restart()

    assert sorted(node.suspects) == [key("a"), ("other", "b")]


@pytest.mark.parametrize("keys", [[], [key("b")]], ids=["nothing", "another"])
async def test_a_mark_replaces_the_one_before(backend: Backend, keys: list[Key]) -> None:
    await backend.store.mark_loading([key("a")])
    await backend.store.mark_loading(keys)

    _, node = await backend.restart()

    assert node.suspects == keys


async def test_suspects_are_told_once(backend: Backend) -> None:
    await backend.store.mark_loading([key("a")])
    await backend.restart()

    _, node = await backend.restart()

    assert node.suspects == []


async def test_a_node_that_was_closed_leaves_no_suspects(backend: Backend) -> None:
    await backend.store.mark_loading([key("a")])
    await backend.store.close()

    _, node = await backend.open()

    assert node.suspects == []


async def test_crashes_are_counted_for_each_saga_until_it_makes_progress(backend: Backend) -> None:
    await backend.commit(start("a"), start("b"))

    assert [await backend.store.count_crash(key("a")) for _ in range(3)] == [1, 2, 3]
    assert await backend.store.count_crash(key("b")) == 1
    await backend.restart()
    assert await backend.store.count_crash(key("a")) == 4

    await backend.commit(step("a", 2))

    assert await backend.store.count_crash(key("a")) == 1
    assert await backend.store.count_crash(key("b")) == 2


async def test_a_crash_over_a_saga_that_does_not_exist_counts_0(backend: Backend) -> None:
    assert await backend.store.count_crash(key("missing")) == 0


@pytest.mark.parametrize("state", [SagaState.RUNNING, SagaState.COMPENSATING])
async def test_park_stops_a_moving_saga_without_reading_its_data(backend: Backend, state: SagaState) -> None:
    await backend.commit(start("a", state=state, parking_mask=2, body=b"poison"))

    reason = ParkingReason.INTERNAL
    assert await backend.store.park(key("a"), revision=1, epoch=1, reason=reason, incident_id="i-1", event=b"e")

    loaded = await backend.load("a")
    row, event = loaded.row, loaded.events[1]
    assert (row.state, row.revision, row.epoch, row.owner) == (SagaState.PARKED, 2, 2, None)
    assert (row.parking_mask, row.incident_id, row.body) == (2 | 1 << reason, "i-1", b"poison")
    assert row.park_time == row.update_time == event.time
    assert (event.revision, event.cause, event.body, event.payload) == (2, EventCause.INCIDENT, b"e", b"")


@pytest.mark.parametrize(
    ("revision", "epoch"), [(1, 1), (3, 1), (2, 2)], ids=["old revision", "later revision", "other epoch"]
)
async def test_park_leaves_a_saga_that_has_moved(backend: Backend, revision: int, epoch: int) -> None:
    await backend.commit(start("a"))
    await backend.commit(step("a", 2))

    parked = await backend.store.park(key("a"), revision=revision, epoch=epoch, reason=7, incident_id="i", event=b"")

    assert not parked
    loaded = await backend.load("a")
    assert (loaded.row.state, loaded.row.revision, len(loaded.events)) == (SagaState.RUNNING, 2, 2)


async def test_park_leaves_a_saga_that_does_not_move(backend: Backend) -> None:
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))

    for saga in ("a", "missing"):
        assert not await backend.store.park(key(saga), revision=2, epoch=1, reason=7, incident_id="i", event=b"")


async def test_stranded_are_the_moving_sagas_that_this_node_owns(backend: Backend) -> None:
    await backend.commit(*(start(saga) for saga in "abcd"))
    await backend.commit(end("b", 2, release=False), step("c", 2, release=True), step("d", 2, state=SagaState.PARKED))
    assert await backend.store.stranded() == [key("a")]

    store, _ = await backend.restart()

    assert await store.stranded() == []
    await store.claim_one(key("c"))
    assert await store.stranded() == [key("c")]


async def test_stranded_are_at_most_1000(backend: Backend) -> None:
    await backend.commit(*(start(f"{n}") for n in range(1_010)))

    assert len(set(await backend.store.stranded())) == 1_000
