"""Two that want the same row at the same moment."""

import asyncio
from datetime import timedelta

import pytest
from support.rows import Connection, holding, holding_row, waiter
from support.storage import DEFINITION_ID, NAMESPACE, VERSION, batch, end, key, start

from sagad_server.domain.errors import FailedPrecondition
from sagad_server.storage.postgres import PostgresStore
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.selection import SagaFilter

ALL = SagaFilter()
INSERT_B = """
INSERT INTO sagad.saga (
    namespace, saga_id, uid, revision, epoch, create_time, update_time, parking_mask, state, category,
    labels, request_hash, body
)
VALUES ('default', 'b', gen_random_uuid(), 1, 1, now(), now(), 0, 1, 0, '{}', '', '')
"""


async def test_a_definition_is_kept_for_a_saga_that_starts_at_the_same_moment(
    store: PostgresStore, postgres_dsn: str, admin: Connection
) -> None:
    async with holding(postgres_dsn, INSERT_B) as holder:
        commit = asyncio.ensure_future(store.commit(batch(start("a"), start("b"))))
        await waiter(admin, "sagad writer")
        deletion = asyncio.ensure_future(store.delete_definition(NAMESPACE, DEFINITION_ID, VERSION))
        await waiter(admin, "sagad pool")
        await holder.execute("ROLLBACK")

        assert len((await commit).keys) == 2
        with pytest.raises(FailedPrecondition):
            await deletion


async def test_a_saga_is_not_written_if_its_definition_is_deleted_at_the_same_moment(
    store: PostgresStore, postgres_dsn: str, admin: Connection
) -> None:
    async with holding(postgres_dsn, "DELETE FROM sagad.definition") as holder:
        commit = asyncio.ensure_future(store.commit(batch(start("a"))))
        await waiter(admin, "sagad writer")
        await holder.execute("COMMIT")

        assert (await commit).keys == set()
    assert await store.get_row(key("a")) is None


async def test_a_purge_does_not_wait_for_a_row_that_is_being_written(store: PostgresStore, postgres_dsn: str) -> None:
    await store.commit(batch(start("a"), start("b")))
    await store.commit(batch(end("a", 2), end("b", 2)))
    async with holding_row(postgres_dsn, key("a")):
        assert (await store.purge(None, ALL, timedelta(0), 10, dry_run=False)).count == 1

    assert (await store.purge(None, ALL, timedelta(0), 10, dry_run=False)).count == 1


async def test_a_saga_that_changes_while_a_purge_comes_to_it_keeps_its_events(
    store: PostgresStore, postgres_dsn: str, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SAGAS["purgeable"].replace("SELECT e.xid,", "SELECT pg_advisory_xact_lock_shared(4711), e.xid,")
    monkeypatch.setitem(SAGAS, "purgeable", slow)
    await store.commit(batch(start("a")))
    await store.commit(batch(end("a", 2)))
    async with holding(postgres_dsn, "SELECT pg_advisory_xact_lock(4711)") as holder:
        purge = asyncio.ensure_future(store.purge(None, ALL, timedelta(0), 10, dry_run=False))
        await waiter(admin, "sagad pool")
        await store.count_crash(key("a"))
        await holder.execute("COMMIT")
        purged = await purge

    row, events = await store.get_row(key("a")), await store.list_events(key("a"), 0, 10)
    assert row is not None
    assert (purged.count, row.purge_time, len(events)) == (0, None, 2)
    assert (await store.purge(None, ALL, timedelta(0), 10, dry_run=False)).count == 1
    assert await store.list_events(key("a"), 0, 10) == []
