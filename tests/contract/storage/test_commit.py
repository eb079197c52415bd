"""Store.commit."""

import uuid
from typing import Any

import pytest
from support.storage import DEFINITION_ID, VERSION, Backend, batch, definition, end, key, start, step

from sagad_server.domain.states import EventCause, FailureCategory, ParkingReason, SagaState
from sagad_server.storage.store import DataRejected


async def test_a_new_saga_is_kept_with_all_its_columns(backend: Backend) -> None:
    uid, labels = uuid.uuid4(), {"region": "north", 'odd "name"': "back\\slash \N{SNOWMAN} \n"}

    committed = await backend.store.commit(batch(start("a", uid=uid, labels=labels, request_hash=b"\0\1")))

    row = (await backend.load("a")).row
    assert (row.namespace, row.saga_id, row.uid) == ("default", "a", uid)
    assert (row.definition_id, row.version) == (DEFINITION_ID, VERSION)
    assert (row.state, row.revision, row.epoch) == (SagaState.RUNNING, 1, 1)
    assert (row.owner, row.labels, row.request_hash) == (backend.node.instance_id, labels, b"\0\1")
    assert (row.parking_mask, row.category, row.incident_id, row.park_time) == (0, 0, "", None)
    assert (row.create_time, row.update_time) == (committed.time, committed.time)
    assert (row.end_time, row.purge_time, row.body) == (None, None, b"body 1")


async def test_a_transition_changes_the_row_and_leaves_what_never_changes(backend: Backend) -> None:
    first = await backend.store.commit(batch(start("a", labels={"region": "north"})))
    before = (await backend.load("a")).row
    change = {"state": SagaState.COMPENSATING, "parking_mask": 6, "category": FailureCategory.BUSINESS}

    second = await backend.store.commit(batch(step("a", 2, body=b"new body", **change)))

    row = (await backend.load("a")).row
    assert (row.state, row.revision, row.epoch, row.body) == (SagaState.COMPENSATING, 2, 1, b"new body")
    assert (row.parking_mask, row.category) == (6, FailureCategory.BUSINESS)
    assert (row.create_time, row.update_time) == (first.time, second.time)
    assert (row.uid, row.labels, row.request_hash) == (before.uid, before.labels, before.request_hash)
    assert (row.definition_id, row.version, row.owner) == (before.definition_id, before.version, before.owner)


async def test_each_transition_makes_one_event(backend: Backend) -> None:
    first = await backend.store.commit(batch(start("a", payload=b"input")))
    second = await backend.store.commit(batch(step("a", 2, cause=EventCause.TIMER, event=b"\0 event")))

    one, two = (await backend.load("a")).events
    assert (one.namespace, one.saga_id, one.revision, one.cause) == ("default", "a", 1, EventCause.STARTED)
    assert (one.body, one.payload, one.time) == (b"event 1", b"input", first.time)
    assert (two.revision, two.cause, two.body, two.payload) == (2, EventCause.TIMER, b"\0 event", b"")
    assert two.time == second.time


async def test_a_large_payload_is_kept(backend: Backend) -> None:
    payload = bytes(range(256)) * 4096

    await backend.commit(start("a", payload=payload, body=payload[:100_000]))

    loaded = await backend.load("a")
    assert loaded.events[0].payload == payload
    assert loaded.row.body == payload[:100_000]


@pytest.mark.parametrize(
    "stale",
    [{"revision": 2, "guard_epoch": 2}, {"revision": 3, "guard_epoch": 1}, {"revision": 1, "guard_epoch": 1}],
    ids=["another epoch", "a later revision", "an earlier revision"],
)
async def test_a_write_whose_guard_does_not_hold_leaves_no_trace_and_the_others_are_written(
    backend: Backend, stale: dict[str, int]
) -> None:
    await backend.commit(start("a"), start("b"), start("c"))

    committed = await backend.store.commit(batch(step("a", 2), step("b", **stale), step("c", 2)))

    assert committed.keys == {key("a"), key("c")}
    loaded = await backend.load("b")
    assert (loaded.row.revision, loaded.row.body, len(loaded.events)) == (1, b"body 1", 1)


async def test_a_transition_of_a_saga_that_does_not_exist_is_not_written(backend: Backend) -> None:
    committed = await backend.store.commit(batch(step("a", 2)))

    assert committed.keys == set()
    assert await backend.store.get_row(key("a")) is None


async def test_a_new_saga_whose_key_exists_is_not_written(backend: Backend) -> None:
    await backend.commit(start("a", labels={"first": "yes"}))

    committed = await backend.store.commit(batch(start("a"), start("b")))

    assert committed.keys == {key("b")}
    loaded = await backend.load("a")
    assert (loaded.row.labels, len(loaded.events)) == ({"first": "yes"}, 1)


@pytest.mark.parametrize(
    "missing",
    [{"definition_id": "other"}, {"version": "2.0.0"}, {"saga": ("elsewhere", "a")}],
    ids=["definition", "version", "namespace"],
)
async def test_a_new_saga_whose_definition_does_not_exist_is_not_written(
    backend: Backend, missing: dict[str, Any]
) -> None:
    committed = await backend.store.commit(batch(start("b"), start(**({"saga": "a"} | missing))))

    assert committed.keys == {key("b")}
    assert await backend.store.resolve([key("a"), ("elsewhere", "a")]) == {}


async def test_a_write_with_the_next_epoch_takes_the_saga_over(backend: Backend) -> None:
    await backend.commit(start("a", release=True))

    await backend.commit(step("a", 2, guard_epoch=1, epoch=2))

    row = (await backend.load("a")).row
    assert (row.owner, row.epoch) == (backend.node.instance_id, 2)


async def test_a_release_leaves_no_owner(backend: Backend) -> None:
    await backend.commit(start("a"), start("b", release=True))
    await backend.commit(step("a", 2, release=True))

    assert [(await backend.load(saga)).row.owner for saga in "ab"] == [None, None]


async def test_a_wake_without_release_changes_nothing(backend: Backend) -> None:
    await backend.commit(start("a", wake_after_ms=3_600_000))
    store, _ = await backend.restart()

    assert [loaded.row.saga_id for loaded in await store.claim(10, [])] == ["a"]


async def test_the_first_end_sets_end_time_and_events_after_it_do_not_move_it(backend: Backend) -> None:
    await backend.commit(start("a"))
    ended = await backend.store.commit(batch(end("a", 2)))
    await backend.commit(end("a", 3, cause=EventCause.LATE_ANSWER))

    assert (await backend.load("a")).row.end_time == ended.time


async def test_a_transition_out_of_an_end_clears_end_time_and_the_next_end_sets_it_anew(backend: Backend) -> None:
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))
    await backend.commit(step("a", 3, state=SagaState.COMPENSATING))
    assert (await backend.load("a")).row.end_time is None

    again = await backend.store.commit(batch(end("a", 4, state=SagaState.COMPENSATED)))
    assert (await backend.load("a")).row.end_time == again.time


async def test_a_tombstone_is_never_written(backend: Backend) -> None:
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))
    await backend.purge_all()

    committed = await backend.store.commit(batch(end("a", 3), start("b")))

    assert committed.keys == {key("b")}
    loaded = await backend.load("a")
    assert (loaded.row.revision, loaded.events) == (2, [])


async def test_a_new_saga_does_not_replace_a_tombstone(backend: Backend) -> None:
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))
    await backend.purge_all()

    committed = await backend.store.commit(batch(start("a")))

    assert committed.keys == set()
    assert (await backend.load("a")).row.purge_time is not None


async def test_a_commit_on_a_saga_parked_as_a_whole_clears_the_incident(backend: Backend) -> None:
    await backend.commit(start("a"))
    reason = ParkingReason.INTERNAL
    assert await backend.store.park(key("a"), revision=1, epoch=1, reason=reason, incident_id="i", event=b"")

    await backend.commit(step("a", 3, guard_epoch=2, epoch=2))

    row = (await backend.load("a")).row
    assert (row.incident_id, row.park_time, row.parking_mask) == ("", None, 0)


async def test_the_same_saga_id_in_two_namespaces_is_two_sagas(backend: Backend) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    await backend.commit(start("a"), start(("other", "a")))

    await backend.commit(step(("other", "a"), 2))

    assert (await backend.load("a")).row.revision == 1
    assert (await backend.load(("other", "a"))).row.revision == 2


async def test_a_batch_of_many_new_and_old_sagas_is_written_as_a_whole(backend: Backend) -> None:
    await backend.commit(*(start(f"old-{n}") for n in range(300)))

    steps = [step(f"old-{n}", 2, event=f"{n}".encode()) for n in range(300)]
    starts = [
        start(f"new-{n}", labels={"n": f"{n}"}, body=f"body {n}".encode(), payload=f"payload {n}".encode())
        for n in range(300)
    ]
    await backend.commit(*steps, *starts)

    for n in (0, 77, 299):
        assert [event.body for event in (await backend.load(f"old-{n}")).events] == [b"event 1", f"{n}".encode()]
        loaded = await backend.load(f"new-{n}")
        assert (loaded.row.labels, loaded.row.body) == ({"n": f"{n}"}, f"body {n}".encode())
        assert loaded.events[0].payload == f"payload {n}".encode()


async def test_an_empty_batch_writes_nothing(backend: Backend) -> None:
    assert (await backend.store.commit(batch())).keys == set()


async def test_two_writes_of_one_saga_in_a_batch_are_a_bug_of_the_caller(backend: Backend) -> None:
    await backend.commit(start("a"))

    with pytest.raises(AssertionError, match="at most one write of a saga"):
        await backend.store.commit(batch(step("a", 2), step("a", 3)))


@pytest.mark.parametrize("text", ["nul \0", "lone surrogate \ud800"])
@pytest.mark.parametrize("place", ["saga_id", "label_name", "label_value"])
async def test_data_that_the_store_cannot_keep_is_rejected_with_its_whole_batch(
    backend: Backend, place: str, text: str
) -> None:
    await backend.commit(start("a"))
    bad = {
        "saga_id": start(text),
        "label_name": start("b", labels={text: ""}),
        "label_value": start("b", labels={"name": text}),
    }[place]

    with pytest.raises(DataRejected):
        await backend.store.commit(batch(step("a", 2), bad))

    assert (await backend.load("a")).row.revision == 1
    await backend.commit(step("a", 2))
