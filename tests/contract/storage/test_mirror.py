"""MirrorStore: who relays which lane, how far it is, and the journal by lanes."""

import itertools
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from support.storage import Backend, end, key, start, step

from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.mirror import (
    BEGINNING,
    LANES,
    RELAY_PARTITIONS,
    Mark,
    MirrorEvent,
    MirrorStore,
    Place,
    lanes_of,
    relay_partition,
)
from sagad_server.storage.postgres import PostgresStore
from sagad_server.storage.selection import SagaFilter

TOPIC = "saga-events"
SAGAS = [f"saga-{number}" for number in range(20)]


@pytest.fixture
def tables(backend: Backend) -> MirrorStore:
    assert isinstance(backend.store, MemoryStore | PostgresStore)
    return backend.store.mirror()


async def enter(tables: MirrorStore, name: str, *, replaces: bool = True) -> UUID:
    relay_id = uuid4()
    await tables.enter(relay_id, TOPIC, name, replaces=replaces)
    return relay_id


async def owned(tables: MirrorStore, relay_id: UUID) -> set[int]:
    return lanes_of(await tables.lanes(TOPIC), relay_id)


async def read(tables: MirrorStore, mark: Mark, lane: int, limit: int = 64, bytes_: int = 1 << 20) -> list[MirrorEvent]:
    """A lane, page by page."""
    events: list[MirrorEvent] = []
    while True:
        pages = await tables.read({lane: mark}, lane_limit=limit, lane_bytes=bytes_, payloads=False)
        assert pages[lane].known
        events += pages[lane].events
        if not pages[lane].more:
            return events
        mark = events[-1].mark


async def test_lanes_that_nobody_owns_are_claimed_and_those_of_the_dead_are_nobodys(tables: MirrorStore) -> None:
    one, two = await enter(tables, "one"), await enter(tables, "two")
    await tables.claim(one, TOPIC, 5)
    await tables.claim(two, TOPIC, LANES)
    assert await owned(tables, one) == {0, 1, 2, 3, 4}
    assert await owned(tables, two) == {5, 6, 7}

    await tables.release(one, TOPIC, [0])
    (lease,) = [relay.lease for relay in await tables.relays(TOPIC) if relay.relay_id == one]
    assert await tables.renew(one)
    await tables.bury(one, lease)
    assert await tables.renew(one), "its lease had grown meanwhile"
    await tables.bury(one, lease + 2)
    assert not await tables.renew(one)
    await tables.claim(two, TOPIC, 2)
    assert await owned(tables, two) == {0, 1, 5, 6, 7}

    await tables.leave(two)
    assert await owned(tables, two) == set()
    assert await tables.relays(TOPIC) == []


async def test_a_process_of_the_same_name_replaces_the_one_before_or_stands_beside_it(tables: MirrorStore) -> None:
    one = await enter(tables, "same")
    again = await enter(tables, "same")
    beside = await enter(tables, "same", replaces=False)
    assert {relay.relay_id for relay in await tables.relays(TOPIC)} == {again, beside}
    assert not await tables.renew(one)


async def test_what_is_noted_of_a_lane_never_goes_backwards_and_belongs_to_its_start_and_owner(
    tables: MirrorStore,
) -> None:
    await enter(tables, "one")
    lane = (await tables.lanes(TOPIC))[3]
    assert (lane.begun, lane.place) == (False, BEGINNING)
    for place in (Place(7, 3), Place(6, 9), Place(7, 2)):
        await tables.relayed(TOPIC, {3: (lane.start_id, place)})
    await tables.relayed(TOPIC, {3: (uuid4(), Place(9, 9))})
    lane = (await tables.lanes(TOPIC))[3]
    assert (lane.begun, lane.place) == (True, Place(7, 3))

    assert await tables.stop(lane, "diverged")
    assert not await tables.stop(replace(lane, lane=4, owner=uuid4()), "by one that does not own it")
    assert not await tables.stop(replace(lane, lane=5, start_id=uuid4()), "of a start that is over")
    assert [row.lane for row in await tables.lanes(TOPIC) if row.fault] == [3]


@pytest.mark.parametrize(("limit", "bytes_"), [(64, 1 << 20), (8, 1 << 20), (64, 1)])
async def test_a_lane_has_all_of_its_sagas_events_in_order_in_pages_of_any_size(
    backend: Backend, tables: MirrorStore, limit: int, bytes_: int
) -> None:
    await backend.commit(*(start(saga, payload=b"first") for saga in sorted(SAGAS)))
    for revision in (2, 3):
        await backend.commit(*(step(saga, revision, payload=b"more") for saga in sorted(SAGAS)))
    seen = []
    for lane in range(LANES):
        events = await read(tables, Mark(BEGINNING), lane, limit, bytes_)
        assert [event.mark.place for event in events] == sorted(event.mark.place for event in events)
        assert all(event.relay_partition == relay_partition(*key(event.row.saga_id)) for event in events)
        assert all(event.relay_partition % LANES == lane for event in events)
        for saga in {event.row.saga_id for event in events}:
            assert [event.row.revision for event in events if event.row.saga_id == saga] == [1, 2, 3]
        seen += events
    assert {event.row.saga_id for event in seen} == set(SAGAS)
    assert {event.row.payload for event in seen if event.row.revision == 1} == {b"first"}
    assert not any(event.row.payload for event in seen if event.row.revision > 1)
    assert await tables.first_payloads([key("saga-3"), key("saga-5")]) == {
        key("saga-3"): b"first",
        key("saga-5"): b"first",
    }


async def test_a_page_says_whether_its_mark_is_known(backend: Backend, tables: MirrorStore) -> None:
    await backend.commit(start("a"))
    lane = relay_partition(*key("a")) % LANES
    (event,) = await read(tables, Mark(BEGINNING), lane)
    mark = event.mark

    async def known(mark: Mark) -> bool:
        return (await tables.read({lane: mark}, lane_limit=64, lane_bytes=1, payloads=False))[lane].known

    assert await known(mark)
    assert not await known(Mark(mark.place, uuid4(), mark.history))
    assert not await known(Mark(mark.place, mark.batch_id, "another"))
    assert not await known(Mark(Place(mark.place.xid, mark.place.position + 1), mark.batch_id, mark.history))


async def test_a_purge_stays_before_what_the_mirror_has_relayed(backend: Backend, tables: MirrorStore) -> None:
    await enter(tables, "one")
    lane = relay_partition(*key("a")) % LANES
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))
    row = (await tables.lanes(TOPIC))[lane]
    last = (await read(tables, Mark(BEGINNING), lane))[-1].mark.place

    async def purge() -> int:
        return (await backend.store.purge(None, SagaFilter(), timedelta(0), 10, dry_run=False)).count

    assert await purge() == 0
    assert (await tables.lag(TOPIC))[lane].events == 2
    await tables.relayed(TOPIC, {lane: (row.start_id, last)})
    assert await purge() == 0, "the event at the place proves that the journal is the same"
    await tables.relayed(TOPIC, {lane: (row.start_id, Place(last.xid, last.position + 1))})
    assert await purge() == 1
    assert (await tables.lag(TOPIC))[lane].events == 0


@pytest.mark.parametrize("standing", [(), (3,)], ids=["no lane", "a lane"])
async def test_what_is_relayed_is_purged_though_a_lane_stands_and_of_each_partition_something_waits(
    backend: Backend, tables: MirrorStore, standing: tuple[int, ...]
) -> None:
    await enter(tables, "one")
    rows = await tables.lanes(TOPIC)
    for saga in one_of_each_partition("old"):
        await backend.commit(start(saga))
        await backend.commit(end(saga, 2))
    for lane in set(range(LANES)) - set(standing):
        last = (await read(tables, Mark(BEGINNING), lane))[-1].mark.place
        await tables.relayed(TOPIC, {lane: (rows[lane].start_id, Place(last.xid, last.position + 1))})
    for saga in one_of_each_partition("new"):
        await backend.commit(start(saga))
        await backend.commit(end(saga, 2))

    purged = await backend.store.purge(None, SagaFilter(), timedelta(0), 1_000, dry_run=False)

    assert purged.count == RELAY_PARTITIONS // LANES * (LANES - len(standing))


def one_of_each_partition(prefix: str) -> list[str]:
    """saga_ids, one in each relay partition."""
    found: dict[int, str] = {}
    for number in itertools.count():
        found.setdefault(relay_partition(*key(f"{prefix}-{number}")), f"{prefix}-{number}")
        if len(found) == RELAY_PARTITIONS:
            break
    return list(found.values())
