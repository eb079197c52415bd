"""Store.purge and forget."""

from datetime import timedelta

import pytest
from support.storage import Backend, definition, end, key, start, step

from sagad_server.domain.states import SagaState
from sagad_server.storage.selection import SagaFilter

ALL = SagaFilter()
NO_TIME = timedelta(0)
HOUR = timedelta(hours=1)


async def ended(backend: Backend, *sagas: str) -> None:
    for saga in sagas:  # one after the other: each has an end_time of its own
        await backend.commit(start(saga, labels={"name": saga}))
        await backend.commit(end(saga, 2))


async def purged(backend: Backend, *sagas: str) -> list[str]:
    rows = [(await backend.load(saga)).row for saga in sagas]
    return [row.saga_id for row in rows if row.purge_time is not None]


@pytest.mark.parametrize("state", [SagaState.SUCCEEDED, SagaState.COMPENSATED, SagaState.ABANDONED])
async def test_a_tombstone_keeps_the_end_and_the_hash_and_nothing_else(backend: Backend, state: SagaState) -> None:
    await backend.commit(start("a", labels={"x": "1"}, request_hash=b"hash"))
    await backend.commit(end("a", 2, state=state))
    before = (await backend.load("a")).row

    assert (await backend.store.purge("default", ALL, NO_TIME, 10, dry_run=False)).count == 1

    loaded = await backend.load("a")
    row = loaded.row
    assert (row.state, row.revision, row.uid, row.request_hash) == (state, 2, before.uid, b"hash")
    assert (row.create_time, row.end_time) == (before.create_time, before.end_time)
    assert (row.definition_id, row.version, row.labels, row.body) == ("", "", {}, b"")
    assert row.purge_time is not None
    assert loaded.events == []
    assert await backend.store.list_events(key("a"), 0, 10) == []


async def test_what_has_not_ended_is_never_purged(backend: Backend) -> None:
    await backend.commit(start("a"), start("b"), start("c"))
    await backend.commit(step("b", 2, state=SagaState.PARKED), step("c", 2, state=SagaState.COMPENSATING))

    assert (await backend.store.purge(None, ALL, NO_TIME, 10, dry_run=False)).count == 0


async def test_a_saga_that_left_its_end_is_not_purged(backend: Backend) -> None:
    await ended(backend, "a")
    await backend.commit(step("a", 3, state=SagaState.COMPENSATING, guard_epoch=1, epoch=2))

    assert (await backend.store.purge(None, ALL, NO_TIME, 10, dry_run=False)).count == 0


async def test_only_what_ended_long_enough_ago_is_purged(backend: Backend) -> None:
    await ended(backend, "old")
    await backend.age(HOUR)
    await ended(backend, "young")

    assert (await backend.store.purge(None, ALL, HOUR, 10, dry_run=False)).count == 1
    assert await purged(backend, "old", "young") == ["old"]


async def test_the_limit_takes_the_oldest_ends_first_and_the_next_purge_the_rest(backend: Backend) -> None:
    await ended(backend, "c", "b", "a")

    assert (await backend.store.purge(None, ALL, NO_TIME, 2, dry_run=False)).count == 2
    assert await purged(backend, "a", "b", "c") == ["b", "c"]
    assert (await backend.store.purge(None, ALL, NO_TIME, 2, dry_run=False)).count == 1
    assert (await backend.store.purge(None, ALL, NO_TIME, 2, dry_run=False)).count == 0


async def test_a_purge_tells_where_the_next_one_may_begin(backend: Backend) -> None:
    await ended(backend, "c", "b", "a")
    times = [(await backend.load(saga)).row.end_time for saga in "cba"]

    first = await backend.store.purge(None, ALL, NO_TIME, 2, dry_run=False)
    second = await backend.store.purge(None, SagaFilter(end_time_min=first.until), NO_TIME, 2, dry_run=False)
    third = await backend.store.purge(None, SagaFilter(end_time_min=second.until), NO_TIME, 2, dry_run=False)

    assert [(done.count, done.until) for done in (first, second, third)] == [(2, times[1]), (1, times[2]), (0, None)]


async def test_a_dry_run_counts_and_purges_nothing(backend: Backend) -> None:
    await ended(backend, "a", "b", "c")

    assert (await backend.store.purge(None, ALL, NO_TIME, 2, dry_run=True)).count == 2
    assert await purged(backend, "a", "b", "c") == []
    assert len((await backend.load("a")).events) == 2


async def test_a_filter_and_a_namespace_select_what_is_purged(backend: Backend) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    await ended(backend, "a", "b")
    await backend.commit(start(("other", "a"), labels={"name": "a"}))
    await backend.commit(end(("other", "a"), 2))

    assert (
        await backend.store.purge("default", SagaFilter(labels={"name": "a"}), NO_TIME, 10, dry_run=False)
    ).count == 1
    assert await purged(backend, "a", "b") == ["a"]
    assert (await backend.store.purge(None, ALL, NO_TIME, 10, dry_run=True)).count == 2
    assert (await backend.store.purge("other", ALL, NO_TIME, 10, dry_run=False)).count == 1


async def test_tombstones_are_forgotten_when_they_are_old_enough(backend: Backend) -> None:
    await ended(backend, "a", "b", "not purged")
    await backend.store.purge(None, ALL, NO_TIME, 2, dry_run=False)
    assert await backend.store.forget(HOUR, 10) == 0
    await backend.age(HOUR)

    assert await backend.store.forget(HOUR, 1) == 1
    assert await backend.store.forget(HOUR, 10) == 1
    assert await backend.store.forget(HOUR, 10) == 0

    assert await backend.store.get_row(key("a")) is None
    assert (await backend.load("not purged")).row.purge_time is None
    await backend.commit(start("a"))
