"""Store.journal_end and read_journal: all events of all sagas in one order, from which nothing is ever left out."""

from dataclasses import replace
from datetime import timedelta

import pytest
from support.storage import Backend, batch, definition, end, key, start, step

from sagad_server.domain.errors import OutOfRange
from sagad_server.domain.states import EventCause, FailureCategory, ParkingReason, SagaState
from sagad_server.storage.journal import Cursor, JournalRow
from sagad_server.storage.rows import EventRow
from sagad_server.storage.selection import SagaFilter

BEGINNING = Cursor(0, 0, "")
LIMIT = 64


async def journal(backend: Backend, after: Cursor = BEGINNING) -> list[JournalRow]:
    """All that can be read behind a cursor, page by page."""
    rows: list[JournalRow] = []
    while True:
        page = await backend.store.read_journal(after, LIMIT)
        assert len(page.rows) <= LIMIT
        assert page.rows or not page.more
        rows += page.rows
        after = page.cursor
        if not page.more:
            assert rows == [] or rows[-1].cursor == after
            return rows


def names(rows: list[JournalRow]) -> list[tuple[str, int]]:
    return [(row.event.saga_id, row.event.revision) for row in rows]


async def test_it_has_the_events_of_all_sagas_in_the_order_of_their_commits(backend: Backend) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    await backend.commit(start("b"))
    await backend.commit(start("a"), step("b", 2))
    await backend.commit(start(("other", "a")), step("b", 3))
    await backend.commit(end("a", 2))

    rows = await journal(backend)

    assert names(rows[:1]) == [("b", 1)]
    assert sorted(names(rows[1:3])) == [("a", 1), ("b", 2)]
    assert sorted(names(rows[3:5])) == [("a", 1), ("b", 3)]
    assert names(rows[5:]) == [("a", 2)]
    assert {row.event.namespace for row in rows} == {"default", "other"}


async def test_a_row_has_the_event_without_its_payload_and_what_its_saga_is(backend: Backend) -> None:
    await backend.commit(start("a", labels={"x": "1"}, payload=b"input"))
    await backend.commit(end("a", 2, payload=b"output"))

    first, last = await journal(backend)

    row = (await backend.load("a")).row
    assert last.event == EventRow(
        "default", "a", 2, EventCause.ANSWERED, (await backend.load("a")).events[1].time, b"event 2", b""
    )
    for each in (first, last):
        assert (each.definition_id, each.version, each.labels) == ("order", "1.0.0", {"x": "1"})
        assert (each.create_time, each.end_time) == (row.create_time, row.end_time)


async def test_a_row_tells_parkings_and_category_as_its_event_left_them(backend: Backend) -> None:
    await backend.commit(start("a", parking_mask=2), start("b"))
    await backend.commit(step("a", 2, category=FailureCategory.TIMEOUT))
    await backend.commit(step("a", 3, category=FailureCategory.TIMEOUT, parking_mask=4, state=SagaState.PARKED))
    await backend.store.park(
        key("b"), revision=1, epoch=1, reason=ParkingReason.INTERNAL, incident_id="i", event=b"parked"
    )

    rows = [row for row in await journal(backend) if names([row]) != [("b", 1)]]

    assert names(rows) == [("a", 1), ("a", 2), ("a", 3), ("b", 2)]
    assert [row.parking_mask for row in rows] == [2, 0, 4, 1 << ParkingReason.INTERNAL]
    assert [row.category for row in rows] == [0, FailureCategory.TIMEOUT, FailureCategory.TIMEOUT, 0]


async def test_pages_of_any_size_bring_each_event_once_and_each_sagas_revisions_in_order(backend: Backend) -> None:
    sagas = [f"saga-{n}" for n in range(70)]
    await backend.commit(*(start(saga) for saga in sagas))
    for revision in (2, 3):
        for some in (sagas[:50], sagas[50:]):
            await backend.commit(*(step(saga, revision) for saga in some))

    rows = await journal(backend)
    at_once = await backend.store.read_journal(BEGINNING, 64 * 1_000)

    assert rows == at_once.rows
    assert not at_once.more
    cursors = [row.cursor for row in rows]
    assert cursors == sorted(set(cursors))
    for saga in sagas:
        assert [revision for name, revision in names(rows) if name == saga] == [1, 2, 3]


async def test_many_events_of_one_saga_are_read_to_their_end(backend: Backend) -> None:
    await backend.commit(start("a"))
    for revision in range(2, 8):
        await backend.commit(step("a", revision))

    assert names(await journal(backend)) == [("a", revision) for revision in range(1, 8)]


async def test_reading_goes_on_behind_any_event(backend: Backend) -> None:
    await backend.commit(start("a"), start("b"), start("c"))
    await backend.commit(step("a", 2), step("b", 2))
    rows = await journal(backend)

    for number, row in enumerate(rows):
        assert await journal(backend, row.cursor) == rows[number + 1 :]


async def test_behind_the_end_is_what_is_committed_later(backend: Backend) -> None:
    beginning = await backend.store.journal_end()
    await backend.commit(start("a"))
    middle = await backend.store.journal_end()
    await backend.commit(step("a", 2))

    assert names(await journal(backend, beginning)) == [("a", 1), ("a", 2)]
    assert names(await journal(backend, middle)) == [("a", 2)]
    last = await backend.store.journal_end()
    page = await backend.store.read_journal(last, LIMIT)
    assert (page.rows, page.cursor, page.more, list(page.purged)) == ([], last, False, [])


async def test_who_has_not_read_what_was_purged_is_told_in_which_namespaces(backend: Backend) -> None:
    await backend.store.create_definition(definition(namespace="other"), 1_000, 10_000)
    await backend.commit(start("a"), start("b"), start(("other", "c")))
    await backend.commit(end("a", 2))
    between = await backend.store.journal_end()
    await backend.commit(step("b", 2), end(("other", "c"), 2))
    last = await backend.store.journal_end()
    await backend.store.purge("default", SagaFilter(), timedelta(0), 10, dry_run=False)

    assert list((await backend.store.read_journal(BEGINNING, LIMIT)).purged) == ["default"]
    assert list((await backend.store.read_journal(between, LIMIT)).purged) == []

    await backend.purge_all()

    assert sorted((await backend.store.read_journal(BEGINNING, LIMIT)).purged) == ["default", "other"]
    assert list((await backend.store.read_journal(between, LIMIT)).purged) == ["other"]
    assert list((await backend.store.read_journal(last, LIMIT)).purged) == []
    assert names(await journal(backend)) == [("b", 1), ("b", 2)]


async def test_an_earlier_event_that_is_purged_later_changes_nothing_for_who_has_read_it(backend: Backend) -> None:
    await backend.commit(start("a"), start("b"))
    await backend.commit(end("a", 2))
    between = await backend.store.journal_end()
    await backend.commit(end("b", 2))
    last = await backend.store.journal_end()
    for _ in range(2):
        await backend.store.purge("default", SagaFilter(), timedelta(0), 1, dry_run=False)

    assert list((await backend.store.read_journal(between, LIMIT)).purged) == ["default"]
    assert list((await backend.store.read_journal(last, LIMIT)).purged) == []


async def test_the_end_is_never_before_what_was_purged(backend: Backend) -> None:
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))
    before = await backend.store.journal_end()
    await backend.purge_all()

    last = await backend.store.journal_end()

    assert last == before
    assert not (await backend.store.read_journal(last, LIMIT)).purged


async def test_the_journal_goes_on_after_a_restart(backend: Backend) -> None:
    await backend.commit(start("a"))
    last = await backend.store.journal_end()
    await backend.restart()
    await backend.commit(start("b"))

    assert names(await journal(backend, last)) == [("b", 1)]


async def test_a_cursor_of_another_history_is_refused_unless_its_event_is_there(backend: Backend) -> None:
    await backend.store.commit(batch(start("a")))
    (row,) = await journal(backend)
    lost = Cursor(row.cursor.xid + 1_000_000, row.cursor.position, "elsewhere")

    with pytest.raises(OutOfRange) as refused:
        await backend.store.read_journal(lost, LIMIT)
    page = await backend.store.read_journal(replace(row.cursor, history="elsewhere"), LIMIT)

    assert refused.value.reason == "JOURNAL_CHANGED"
    assert page.cursor.history == row.cursor.history
