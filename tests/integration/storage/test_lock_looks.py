"""Looking for locks in vain, which those who wait do again and again, holds nobody up."""

import asyncio

from support.rows import Connection
from support.storage import batch, end, start

from sagad_server.storage.postgres import PostgresStore

TAKE_ALL_CLASSES = "SELECT pg_advisory_xact_lock(hashtext('sagad.lock'), class) FROM generate_series(0, 63) AS class"
WAITS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def test_a_look_waits_for_nobody_unless_there_is_a_lock_to_give(store: PostgresStore, admin: Connection) -> None:
    await store.commit(batch(start("a", takes=("x",)), start("b", queues_for="y")))
    await store.commit(batch(start("c", queues_for="x")))
    async with admin.transaction():
        await admin.execute(TAKE_ALL_CLASSES)

        held = await store.grant([("default", "x"), ("default", "nobody's")])
        gives = asyncio.create_task(store.grant([("default", "y")]))
        while not await admin.fetchval(WAITS):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)

    assert [(holder.saga_id, holder.granted) for holder in held] == [("a", False)]
    assert [(holder.saga_id, holder.granted) for holder in await gives] == [("b", True)]
    await store.commit(batch(end("a", 2, gives_back=True)))
    assert [holder.saga_id for holder in await store.grant([("default", "x")])] == ["c"]
