"""Store.load, get_row, list_sagas, list_events, stats and count_by_state."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from support.storage import Backend, batch, definition, end, key, start, step

from sagad.storage.v1.storage_pb2 import SagaRecord, StepRecord
from sagad_server.domain.states import FailureCategory, ParkingReason, SagaState
from sagad_server.storage.lists import MOST_SCANNED
from sagad_server.storage.rows import Position
from sagad_server.storage.selection import SagaFilter

ALL = SagaFilter()
MICROSECOND = timedelta(microseconds=1)


async def pages_of(backend: Backend, selection: SagaFilter, limit: int, most_scanned: int) -> list[list[str]]:
    """The saga_ids of all pages."""
    pages: list[list[str]] = []
    after: Position | None = None
    while not pages or after is not None:
        page = await backend.store.list_sagas("default", selection, after, limit, most_scanned)
        assert page.stopped_at != after or after is None, "a page gets further"
        pages.append([row.saga_id for row in page.rows])
        after = page.stopped_at
    return pages


async def listed(backend: Backend, **selection: Any) -> list[str]:
    rows = (await backend.store.list_sagas("default", SagaFilter(**selection), None, 100, MOST_SCANNED)).rows
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


async def test_of_a_long_journal_only_what_holds_data_and_what_the_row_refers_to_is_loaded(backend: Backend) -> None:
    first, second = StepRecord(changed_revision=80, since_revision=7), StepRecord(changed_revision=270)
    body = SagaRecord(steps=[first, second]).SerializeToString()
    await backend.commit(start("a"), start("unreadable"))
    for revision in range(2, 301):
        payload = b"data" if revision in (2, 80, 299) else b""
        await backend.commit(
            step("a", revision, body=body, payload=payload), step("unreadable", revision, body=b"\xff")
        )

    long, unreadable = await backend.load("a"), await backend.load("unreadable")

    assert [event.revision for event in long.events] == [1, 2, 7, 80, 270, 299]
    for event in long.events:
        assert [event] == await backend.store.list_events(key("a"), event.revision - 1, 1)
    assert [event.revision for event in unreadable.events] == [1]
    store, _ = await backend.restart()
    claimed = {loaded.row.saga_id: loaded.events for loaded in await store.claim(10, [])}
    assert claimed == {"a": long.events, "unreadable": unreadable.events}


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


async def test_those_that_moved_beyond_a_revision_are_told_from_those_that_stand(backend: Backend) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    await backend.commit(start("stands"), start("moved"), start("ended"), start(("other", "stands")))
    await backend.commit(step("moved", 2), end("ended", 2), step(("other", "stands"), 2))
    await backend.commit(step("moved", 3))
    await backend.purge_all()

    seen = {key("stands"): 1, key("moved"): 1, key("ended"): 1, key("gone"): 7, key("stands", "other"): 2}

    assert await backend.store.moved(seen) == {key("moved"): 3, key("ended"): 2, key("gone"): None}
    assert await backend.store.moved({}) == {}


async def test_sagas_are_listed_newest_first_and_those_of_one_moment_by_saga_id(backend: Backend) -> None:
    await backend.commit(start("b"), start("a"), start("B"), start("\N{SNOWMAN}"))
    await backend.commit(start("c"))

    rows = (await backend.store.list_sagas("default", ALL, None, 10, MOST_SCANNED)).rows

    assert [row.saga_id for row in rows] == ["c", "B", "a", "b", "\N{SNOWMAN}"]
    assert rows[0] == (await backend.load("c")).row


async def test_pages_that_follow_the_last_row_show_each_saga_once(backend: Backend) -> None:
    await backend.commit(*(start(f"{n}") for n in range(7)))
    await backend.commit(*(start(f"1{n}") for n in range(3)))

    pages = await pages_of(backend, ALL, 4, MOST_SCANNED)

    assert [row for page in pages for row in page] == ["10", "11", "12", *map(str, range(7))]
    assert [len(page) for page in pages] == [4, 4, 2]


@pytest.mark.parametrize("most_scanned", [1, 2, 5])
async def test_pages_that_come_short_together_show_each_selected_saga_once(backend: Backend, most_scanned: int) -> None:
    await backend.store.create_definition(definition(version="2.0.0"), 1_000, 10_000)
    for n in range(12):
        version = "2.0.0" if n % 2 else "1.0.0"
        await backend.commit(*(start(f"{n}-{m}", labels={"n": f"{n}"}, version=version) for m in range(3)))
        state = SagaState.COMPENSATED if n in (1, 2) else SagaState.SUCCEEDED
        await backend.commit(*(end(f"{n}-{m}", 2, state=state) for m in range(2)))
    for selection in (
        ALL,
        SagaFilter(labels={"n": "1"}),
        SagaFilter(labels={"n": "1"}, definition_id="order"),
        SagaFilter(labels={"n": "9"}, states=(SagaState.SUCCEEDED,)),
        SagaFilter(labels={"n": "9"}, states=(SagaState.COMPENSATED,)),
        SagaFilter(version="2.0.0", labels={"n": "0"}),
    ):
        whole = await pages_of(backend, selection, 100, 1_000)
        pages = await pages_of(backend, selection, 2, most_scanned)

        assert len(whole) == 1
        assert [row for page in pages for row in page] == whole[0], selection
        assert all(len(page) <= 2 for page in pages)


async def test_a_page_is_empty_rather_than_that_all_sagas_are_looked_at(backend: Backend) -> None:
    await backend.commit(*(start(f"{n}", labels={"first": "1"}) for n in range(2)))
    for n in range(2, 9):
        await backend.commit(start(f"{n}"))

    page = await backend.store.list_sagas("default", SagaFilter(labels={"first": "1"}), None, 1, 1)

    assert page.rows == []
    assert page.stopped_at is not None
    assert page.stopped_at[1] == "8"


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
    assert [row.saga_id for row in (await backend.store.list_sagas("other", ALL, None, 10, MOST_SCANNED)).rows] == ["c"]


async def test_stats_count_the_selected_by_state_without_tombstones(backend: Backend) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    await backend.commit(start("gone"))
    await backend.commit(end("gone", 2))
    await backend.purge_all()
    await backend.commit(*(start(saga, labels={"x": "1"}) for saga in "abc"), start("d"), start(("other", "e")))
    await backend.commit(end("a", 2), end("d", 2))

    stats = await backend.store.stats("default", ALL, 10, MOST_SCANNED)
    labelled = await backend.store.stats("default", SagaFilter(labels={"x": "1"}), 10, MOST_SCANNED)

    assert stats.by_state == {SagaState.RUNNING: 2, SagaState.SUCCEEDED: 2}
    assert labelled.by_state == {SagaState.RUNNING: 2, SagaState.SUCCEEDED: 1}


async def test_stats_tell_durations_of_ended_sagas_and_the_oldest_that_has_not_ended(backend: Backend) -> None:
    first = await backend.store.commit(batch(*(start(f"{n}") for n in range(10))))
    later = await backend.store.commit(batch(start("later")))
    times = [(await backend.store.commit(batch(end(f"{n}", 2)))).time for n in range(10)]

    stats = await backend.store.stats("default", ALL, 10, MOST_SCANNED)

    durations = [time - first.time for time in times]
    assert (stats.duration_p50, stats.duration_p90, stats.duration_p99) == (durations[4], durations[8], durations[9])
    assert stats.oldest_running_time == later.time


async def test_a_parked_saga_has_not_ended(backend: Backend) -> None:
    committed = await backend.store.commit(batch(start("a", state=SagaState.PARKED, parking_mask=2)))

    assert (await backend.store.stats("default", ALL, 10, MOST_SCANNED)).oldest_running_time == committed.time


async def test_stats_count_the_newest_that_have_ended_and_say_how_far_back_that_is(backend: Backend) -> None:
    created = [(await backend.store.commit(batch(start(saga), start(f"{saga}-moves")))).time for saga in "abcd"]
    for saga in "dbac":
        await backend.commit(end(saga, 2, state=SagaState.COMPENSATED if saga == "a" else SagaState.SUCCEEDED))

    three = await backend.store.stats("default", ALL, 3, MOST_SCANNED)
    four = await backend.store.stats("default", ALL, 4, MOST_SCANNED)

    assert three.by_state == {SagaState.RUNNING: 4, SagaState.SUCCEEDED: 3}
    assert three.ended_since == created[0] + MICROSECOND
    assert four.by_state == {SagaState.RUNNING: 4, SagaState.SUCCEEDED: 3, SagaState.COMPENSATED: 1}
    assert four.ended_since is None


async def test_stats_count_all_that_is_selected_of_what_was_created_since_the_time_they_tell(backend: Backend) -> None:
    created = {
        f"{n}": (await backend.store.commit(batch(start(f"{n}", labels={"n": f"{n % 3}"})))).time for n in range(9)
    }
    for saga in created:
        await backend.commit(end(saga, 2))

    stats = await backend.store.stats("default", SagaFilter(labels={"n": "0"}, definition_id="order"), 2, 3)

    assert stats.ended_since is not None
    counted = [saga for saga, time in created.items() if int(saga) % 3 == 0 and time >= stats.ended_since]
    assert sum(stats.by_state.values()) == len(counted)


@pytest.mark.parametrize("most_ended", range(2, 7))
async def test_of_sagas_created_at_the_same_time_stats_count_all_or_none(backend: Backend, most_ended: int) -> None:
    for group in ("ab", "cd", "ef"):
        await backend.store.commit(batch(*(start(saga) for saga in group)))
    for saga in "abcdef":
        await backend.commit(end(saga, 2))

    newer = await backend.store.stats("default", ALL, most_ended, MOST_SCANNED)
    older = await backend.store.stats("default", SagaFilter(create_time_max=newer.ended_since), 6, MOST_SCANNED)

    assert sum(newer.by_state.values()) == most_ended // 2 * 2
    assert (newer.ended_since is None) is (most_ended == 6)
    if newer.ended_since is not None:
        assert sum(older.by_state.values()) == 6 - most_ended // 2 * 2


async def test_stats_of_nothing_have_no_durations(backend: Backend) -> None:
    stats = await backend.store.stats("default", ALL, 10, MOST_SCANNED)

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
