"""Store.resolve."""

import uuid

from support.storage import Backend, batch, end, key, start, step

from sagad_server.domain.states import ParkingReason


async def test_it_tells_where_each_row_stands_and_which_batch_brought_it_there(backend: Backend) -> None:
    uid = uuid.uuid4()
    await backend.commit(start("a", uid=uid), start("b"))
    last = batch(step("a", 2, guard_epoch=1, epoch=2))
    committed = await backend.store.commit(last)

    states = await backend.store.resolve([key("b"), key("missing"), key("a")])

    assert states.keys() == {key("a"), key("b")}
    a = states[key("a")]
    assert (a.uid, a.epoch, a.revision, a.batch_id, a.time) == (uid, 2, 2, last.batch_id, committed.time)
    assert states[key("b")].revision == 1
    assert states[key("b")].batch_id != last.batch_id


async def test_nothing_asked_is_nothing_answered(backend: Backend) -> None:
    assert await backend.store.resolve([]) == {}


async def test_an_incident_belongs_to_nobodys_batch(backend: Backend) -> None:
    first = batch(start("a"))
    await backend.store.commit(first)
    reason = ParkingReason.INTERNAL
    await backend.store.park(key("a"), revision=1, epoch=1, reason=reason, incident_id="i", event=b"")

    state = (await backend.store.resolve([key("a")]))[key("a")]

    assert state.revision == 2
    assert state.batch_id not in (None, first.batch_id)


async def test_a_tombstone_has_no_batch(backend: Backend) -> None:
    await backend.commit(start("a"))
    ended = await backend.store.commit(batch(end("a", 2)))
    await backend.purge_all()

    state = (await backend.store.resolve([key("a")]))[key("a")]

    assert (state.revision, state.batch_id, state.time) == (2, None, ended.time)
