"""Store.load, get_row, list_sagas, list_events, stats and count_by_state."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from support.storage import Backend, batch, definition, end, key, start, step

from sagad_server.domain.states import FailureCategory, ParkingReason, SagaState
from sagad_server.storage.store import SagaFilter, SagaRow

ALL = SagaFilter()
MICROSECOND = timedelta(microseconds=1)


async def listed(backend: Backend, **selection: Any) -> list[str]:
    rows = await backend.store.list_sagas("default", SagaFilter(**selection), None, 100)
    return sorted(row.saga_id for row in rows)


async def test_a_saga_that_does_not_exist_is_none(backend: Backend) -> None:
    assert await backend.store.load(key("a")) is None
    assert await backend.store.get_row(key("a")) is None
    assert await backend.store.list_events(key("a"), 0, 10) == []


async def test_load_gives_row_and_journal_and_get_row_the_same_row(backend: Backend) -> None:
    await backend.commit(start("a"), start("ab"))
    committed = await backend.store.commit(batch(step("a", 2)))

    loaded = await backend.load("a")

    assert [event.revision for event in loaded.events] == [1, 2]
    assert loaded.row == await backend.store.get_row(key("a"))
    assert loaded.row.key == key("a")
    assert loaded.now > committed.time


async def test_a_tombstone_has_no_events(backend: Backend) -> None:
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))
    await backend.purge_all()

    loaded = await backend.load("a")

    assert (loaded.events, loaded.row.revision) == ([], 2)


async def test_the_journal_is_read_oldest_first_after_a_revision_and_up_to_a_limit(backend: Backend) -> None:
    await backend.commit(start("a"), start("ab"))
    for revision in range(2, 6):
        await backend.commit(step("a", revision))

    events = await backend.store.list_events(key("a"), 1, 3)

    assert [event.revision for event in events] == [2, 3, 4]
    assert events == (await backend.load("a")).events[1:4]


async def test_sagas_are_listed_newest_first_and_those_of_one_moment_by_saga_id(backend: Backend) -> None:
    await backend.commit(start("b"), start("a"), start("B"), start("\N{SNOWMAN}"))
    await backend.commit(start("c"))

    rows = await backend.store.list_sagas("default", ALL, None, 10)

    assert [row.saga_id for row in rows] == ["c", "B", "a", "b", "\N{SNOWMAN}"]
    assert rows[0] == (await backend.load("c")).row


async def test_pages_that_follow_the_last_row_show_each_saga_once(backend: Backend) -> None:
    await backend.commit(*(start(f"{n}") for n in range(7)))
    await backend.commit(*(start(f"1{n}") for n in range(3)))
    pages: list[list[SagaRow]] = [await backend.store.list_sagas("default", ALL, None, 4)]

    while pages[-1]:
        last = pages[-1][-1]
        pages.append(await backend.store.list_sagas("default", ALL, (last.create_time, last.saga_id), 4))

    seen = [row.saga_id for page in pages for row in page]
    assert seen == ["10", "11", "12", *map(str, range(7))]


async def test_each_field_of_a_filter_selects(backend: Backend) -> None:
    await backend.store.create_definition(definition("refund"), 1_000, 10_000)
    await backend.store.create_definition(definition(version="2.0.0"), 1_000, 10_000)
    await backend.commit(
        start("a", labels={"region": "north", "tier": "gold"}),
        start("b", labels={"region": "south"}, definition_id="refund"),
        start("c", version="2.0.0"),
    )
    await backend.commit(
        step(
            "b", 2, state=SagaState.PARKED, parking_mask=1 << ParkingReason.STEP_REFUSED | 1 << ParkingReason.INTERNAL
        ),
        step("c", 2, state=SagaState.COMPENSATING, category=FailureCategory.TIMEOUT),
    )

    assert await listed(backend) == ["a", "b", "c"]
    assert await listed(backend, states=(SagaState.RUNNING,)) == ["a"]
    assert await listed(backend, states=(SagaState.PARKED,)) == ["b"]
    assert await listed(backend, states=(SagaState.PARKED, SagaState.COMPENSATING)) == ["b", "c"]
    assert await listed(backend, definition_id="refund") == ["b"]
    assert await listed(backend, definition_id="order") == ["a", "c"]
    assert await listed(backend, version="2.0.0") == ["c"]
    assert await listed(backend, labels={"region": "north"}) == ["a"]
    assert await listed(backend, labels={"region": "north", "tier": "gold"}) == ["a"]
    assert await listed(backend, labels={"region": "north", "tier": "silver"}) == []
    assert await listed(backend, labels={"region": ""}) == []
    assert await listed(backend, parking_mask=1 << ParkingReason.STEP_REFUSED) == ["b"]
    assert await listed(backend, parking_mask=1 << ParkingReason.STEP_REFUSED | 1 << ParkingReason.NO_PROGRESS) == ["b"]
    assert await listed(backend, parking_mask=1 << ParkingReason.NO_PROGRESS) == []
    assert await listed(backend, parking_mask=1 << ParkingReason.INTERNAL, states=(SagaState.SUCCEEDED,)) == []
    assert await listed(backend, definition_id="order", version="1.0.0") == ["a"]
    assert await listed(backend, definition_id="order", states=(SagaState.COMPENSATING,)) == ["c"]
    assert await listed(backend, categories=(FailureCategory.TIMEOUT,) * 2) == ["c"]
    assert await listed(backend, categories=(FailureCategory.TIMEOUT, FailureCategory.BUSINESS)) == ["c"]


async def test_the_fields_of_a_filter_are_joined_by_and(backend: Backend) -> None:
    await backend.commit(start("a", labels={"x": "1"}), start("b", labels={"x": "1"}), start("c"))
    await backend.commit(step("b", 2, state=SagaState.PARKED, parking_mask=2), step("c", 2, state=SagaState.PARKED))

    assert await listed(backend, labels={"x": "1"}, states=(SagaState.PARKED,), definition_id="order") == ["b"]
    assert await listed(backend, states=(SagaState.PARKED,)) == ["b", "c"]


async def test_a_filter_by_time_includes_its_minimum_and_excludes_its_maximum(backend: Backend) -> None:
    created: list[datetime] = [(await backend.store.commit(batch(start(saga)))).time for saga in "abc"]
    ended: list[datetime] = [(await backend.store.commit(batch(end(saga, 2)))).time for saga in "ab"]

    assert await listed(backend, create_time_min=created[1]) == ["b", "c"]
    assert await listed(backend, create_time_max=created[1]) == ["a"]
    assert await listed(backend, create_time_min=created[0], create_time_max=created[1] + MICROSECOND) == ["a", "b"]
    assert await listed(backend, end_time_min=ended[1]) == ["b"]
    assert await listed(backend, end_time_max=ended[1]) == ["a"]
    assert await listed(backend, end_time_min=ended[0], end_time_max=ended[1] + MICROSECOND) == ["a", "b"]


async def test_a_list_shows_neither_tombstones_nor_other_namespaces(backend: Backend) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    await backend.commit(start("a"), start("b"), start(("other", "c")))
    await backend.commit(end("a", 2))
    await backend.purge_all()

    assert await listed(backend) == ["b"]
    assert [row.saga_id for row in await backend.store.list_sagas("other", ALL, None, 10)] == ["c"]


async def test_stats_count_the_selected_by_state_without_tombstones(backend: Backend) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    await backend.commit(start("gone"))
    await backend.commit(end("gone", 2))
    await backend.purge_all()
    await backend.commit(*(start(saga, labels={"x": "1"}) for saga in "abc"), start("d"), start(("other", "e")))
    await backend.commit(end("a", 2), end("d", 2))

    stats = await backend.store.stats("default", ALL, 10)
    labelled = await backend.store.stats("default", SagaFilter(labels={"x": "1"}), 10)

    assert stats.by_state == {SagaState.RUNNING: 2, SagaState.SUCCEEDED: 2}
    assert labelled.by_state == {SagaState.RUNNING: 2, SagaState.SUCCEEDED: 1}


async def test_stats_tell_durations_of_ended_sagas_and_the_oldest_that_has_not_ended(backend: Backend) -> None:
    first = await backend.store.commit(batch(*(start(f"{n}") for n in range(10))))
    later = await backend.store.commit(batch(start("later")))
    times = [(await backend.store.commit(batch(end(f"{n}", 2)))).time for n in range(10)]

    stats = await backend.store.stats("default", ALL, 10)

    durations = [time - first.time for time in times]
    assert (stats.duration_p50, stats.duration_p90, stats.duration_p99) == (durations[4], durations[8], durations[9])
    assert stats.oldest_running_time == later.time


async def test_a_parked_saga_has_not_ended(backend: Backend) -> None:
    committed = await backend.store.commit(batch(start("a", state=SagaState.PARKED, parking_mask=2)))

    assert (await backend.store.stats("default", ALL, 10)).oldest_running_time == committed.time


async def test_stats_count_the_newest_that_have_ended_and_say_how_far_back_that_is(backend: Backend) -> None:
    created = [(await backend.store.commit(batch(start(saga), start(f"{saga}-moves")))).time for saga in "abcd"]
    for saga in "dbac":
        await backend.commit(end(saga, 2, state=SagaState.COMPENSATED if saga == "a" else SagaState.SUCCEEDED))

    three = await backend.store.stats("default", ALL, 3)
    five = await backend.store.stats("default", ALL, 5)

    assert three.by_state == {SagaState.RUNNING: 4, SagaState.SUCCEEDED: 3}
    assert three.ended_since == created[1]
    assert five.by_state == {SagaState.RUNNING: 4, SagaState.SUCCEEDED: 3, SagaState.COMPENSATED: 1}
    assert five.ended_since is None


async def test_stats_of_nothing_have_no_durations(backend: Backend) -> None:
    stats = await backend.store.stats("default", ALL, 10)

    assert stats.by_state == {}
    assert (stats.duration_p50, stats.duration_p90, stats.duration_p99) == (None, None, None)
    assert stats.oldest_running_time is None


@pytest.mark.parametrize("state", list(SagaState))
async def test_only_sagas_that_have_not_ended_are_counted_over_all_namespaces(
    backend: Backend, state: SagaState
) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    ended = state >= SagaState.SUCCEEDED
    await backend.commit(*(start(saga, state=state, ended=ended) for saga in ("a", ("other", "b"))))

    assert await backend.store.count_by_state() == ({} if ended else {state: 2})
