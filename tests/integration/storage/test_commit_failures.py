"""What the writer says when a commit does not end well, and what `resolve` says then."""

import asyncio
import os
import signal

import pytest
from support.proxy import proxied
from support.rows import LOCK_ROW, Connection, holding_row, lose_writer, until, waiter
from support.storage import OpenStore, batch, key, start, step

from sagad_server.embedded import EmbeddedPostgres
from sagad_server.storage.postgres import PostgresStore
from sagad_server.storage.store import CommitUnknown, DataRejected, Retryable
from sagad_server.storage.writes import Batch

TWO_WAIT = """
SELECT count(*) = 2 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def where(store: PostgresStore, sent: Batch) -> tuple[int, bool]:
    """The saga's revision, and whether it was this batch that brought it there."""
    state = (await store.resolve([sent.writes[0].key]))[sent.writes[0].key]
    return state.revision, state.batch_id == sent.batch_id


async def test_a_commit_whose_answer_is_cut_off_is_unknown_and_resolve_finds_it_committed(
    open_store: OpenStore, postgres_dsn: str
) -> None:
    async with proxied(postgres_dsn) as (proxy, dsn):
        store = await open_store(dsn)
        await store.commit(batch(start("a")))
        proxy.cut_answer_to(b"lost answer")
        sent = batch(step("a", 2, event=b"lost answer"))

        with pytest.raises(CommitUnknown):
            await store.commit(sent)

        assert proxy.acted.is_set()
        assert await where(store, sent) == (2, True)
        assert (await store.commit(batch(step("a", 3)))).keys == {key("a")}


async def test_a_silent_connection_is_closed_after_writer_silence_and_its_commit_unknown(
    open_store: OpenStore, postgres_dsn: str
) -> None:
    async with proxied(postgres_dsn) as (proxy, dsn):
        store = await open_store(dsn)
        await store.commit(batch(start("a")))
        proxy.lose_answer_to(b"silence")
        sent = batch(step("a", 2, event=b"silence"))

        with pytest.raises(CommitUnknown, match=r"silent for 1 s"):
            await store.commit(sent)

        assert await where(store, sent) == (2, True)
        assert (await store.commit(batch(step("a", 3)))).keys == {key("a")}


async def test_a_commit_killed_on_the_server_is_unknown_and_resolve_finds_that_nothing_was_written(
    store: PostgresStore, postgres_dsn: str, admin: Connection
) -> None:
    await store.commit(batch(start("a")))
    sent = batch(step("a", 2))
    async with holding_row(postgres_dsn, key("a")):
        commit = asyncio.ensure_future(store.commit(sent))
        await admin.execute("SELECT pg_terminate_backend($1)", await waiter(admin))
        with pytest.raises(CommitUnknown):
            await commit

    assert await where(store, sent) == (1, False)
    assert (await store.commit(sent)).keys == {key("a")}


async def test_a_commit_given_up_is_not_cancelled_and_resolve_waits_for_its_end(
    store: PostgresStore, postgres_dsn: str, admin: Connection
) -> None:
    await store.commit(batch(start("a")))
    sent = batch(step("a", 2))
    async with holding_row(postgres_dsn, key("a")) as holder:
        with pytest.raises(CommitUnknown):
            await store.commit(sent)
        resolution = asyncio.ensure_future(where(store, sent))
        await waiter(admin, "sagad resolve")
        await waiter(admin, "sagad writer")
        await holder.execute("ROLLBACK")

        assert await resolution == (2, True)


async def test_a_caller_that_is_cancelled_does_not_cancel_the_statement(
    store: PostgresStore, postgres_dsn: str, admin: Connection
) -> None:
    await store.commit(batch(start("a")))
    sent = batch(step("a", 2))
    async with holding_row(postgres_dsn, key("a")) as holder:
        commit = asyncio.ensure_future(store.commit(sent))
        await waiter(admin)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        await waiter(admin, "sagad writer")
        await holder.execute("ROLLBACK")

    assert await where(store, sent) == (2, True)


async def test_resolve_does_not_wait_for_a_row_for_ever(
    store: PostgresStore, postgres_dsn: str, admin: Connection
) -> None:
    await store.commit(batch(start("a")))
    async with holding_row(postgres_dsn, key("a")):
        with pytest.raises(Retryable):
            await store.resolve([key("a")])

    assert (await store.resolve([key("a")]))[key("a")].revision == 1


async def test_a_new_saga_of_an_unknown_batch_is_sent_again_and_waits_for_the_first(
    store: PostgresStore, postgres_dsn: str, admin: Connection
) -> None:
    """An empty read decides nothing: the first insert waits behind the row of another saga."""
    await store.commit(batch(start("z")))
    sent = batch(start("a"), step("z", 2))
    async with holding_row(postgres_dsn, key("z")) as holder:
        with pytest.raises(CommitUnknown):
            await store.commit(sent)
        assert await store.resolve([key("a")]) == {}
        again = asyncio.ensure_future(store.commit(sent))
        await until(lambda: admin.fetchval(TWO_WAIT))
        await holder.execute("ROLLBACK")

        assert (await again).keys == set()
    assert await where(store, sent) == (1, True)


async def test_a_deadlock_is_certain_and_may_be_sent_again(
    open_store: OpenStore, postgres_dsn: str, admin: Connection
) -> None:
    await admin.execute(f"ALTER DATABASE {await database(admin)} SET deadlock_timeout = '700ms'")
    store = await open_store(postgres_dsn, writer_silence_s=5)
    await store.commit(batch(start("a"), start("b")))
    sent = batch(step("a", 2), step("b", 2))
    async with holding_row(postgres_dsn, key("b")) as holder:
        await holder.execute("SET deadlock_timeout = '1min'")  # so that it is the writer who sees it
        commit = asyncio.ensure_future(store.commit(sent))
        await waiter(admin)
        await holder.execute(LOCK_ROW, *key("a"))
        with pytest.raises(Retryable, match="deadlock"):
            await commit

    assert (await store.commit(sent)).keys == {key("a"), key("b")}


async def database(admin: Connection) -> str:
    name: str = await admin.fetchval("SELECT quote_ident(current_database())")
    return name


@pytest.mark.parametrize(
    "bad",
    [
        {"parking_mask": 2**31},
        {"state": 2**15},
        {"saga": "".join(chr(0x100 + n * 7919 % 50_000) for n in range(5_000))},
    ],
    ids=["a number too large for the driver", "another", "a key too large for an index"],
)
async def test_what_a_column_cannot_hold_is_rejected(store: PostgresStore, bad: dict[str, object]) -> None:
    with pytest.raises(DataRejected):
        await store.commit(batch(start(**({"saga": "a"} | bad))))  # type: ignore[arg-type]

    assert (await store.commit(batch(start("a")))).keys == {key("a")}


async def test_a_writer_connection_lost_while_idle_is_made_anew_without_anybody_noticing(
    store: PostgresStore, admin: Connection
) -> None:
    await store.commit(batch(start("a")))
    await lose_writer(admin, store)

    assert (await store.commit(batch(step("a", 2)))).keys == {key("a")}


async def test_a_host_that_takes_no_writes_any_more_is_certain(store: PostgresStore, admin: Connection) -> None:
    await store.commit(batch(start("a")))
    sent = batch(step("a", 2))
    await admin.execute(f"ALTER DATABASE {await database(admin)} SET default_transaction_read_only = on")
    await lose_writer(admin, store)

    with pytest.raises(Retryable):
        await store.commit(sent)

    await admin.execute("SET transaction_read_only = off")
    await admin.execute(f"ALTER DATABASE {await database(admin)} RESET default_transaction_read_only")
    assert (await store.commit(sent)).keys == {key("a")}


async def test_a_commit_in_flight_when_the_server_stops_is_unknown_and_resolved_after_its_start(
    open_store: OpenStore, own_postgres: EmbeddedPostgres
) -> None:
    store = await open_store(own_postgres.dsn)
    await store.commit(batch(start("a")))
    sent = batch(step("a", 2))
    async with holding_row(own_postgres.dsn, key("a")) as holder:
        commit = asyncio.ensure_future(store.commit(sent))
        await waiter(holder)
        # A holder that is stopped first gives the row free, and the commit may still be made: so it is held still.
        os.kill(holder.get_server_pid(), signal.SIGSTOP)
        stopping = asyncio.ensure_future(asyncio.to_thread(own_postgres.stop))
        try:
            with pytest.raises(CommitUnknown):
                await commit
        finally:
            os.kill(holder.get_server_pid(), signal.SIGCONT)
            await stopping
    with pytest.raises(Retryable):
        await store.commit(sent)
    with pytest.raises(Retryable):
        await store.resolve([key("a")])

    await asyncio.to_thread(own_postgres.start)

    assert await where(store, sent) == (1, False)
    assert (await store.commit(sent)).keys == {key("a")}
