"""PostgreSQL stopped, its connections cut, commit answers lost - while 200 sagas run."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from support.keeper import keeping
from support.load import Load
from support.processes import sagad_process
from support.proxy import proxied

from sagad_client import Backoff, Client, Unavailable
from sagad_server.embedded import EmbeddedPostgres

IMPATIENT = Backoff(attempts=1)


async def test_postgres_stopped_and_started_again(folder: Path, own_postgres: EmbeddedPostgres) -> None:
    async with keeping(delay_s=0.2) as keeper:
        with sagad_process(folder, own_postgres.dsn, {"keeper": keeper.address}) as sagad:
            load = Load(sagad.address, keeper)
            async with load.client, Client(sagad.address, backoff=IMPATIENT, timeout_s=10) as impatient:
                await load.prepare()
                await load.start()
                await asyncio.to_thread(own_postgres.stop)
                with pytest.raises(Unavailable) as caught:
                    await impatient.start("kept", {}, saga_id="while-away")
                assert caught.value.retry_after_s, "the answer says when to try again"
                await _until(lambda: not sagad.serving(), "health is NOT_SERVING")
                await asyncio.to_thread(own_postgres.start)
                await _until(sagad.serving, "health is SERVING again")
                await load.check()
                assert sagad.alive


async def test_the_writers_connections_terminated(folder: Path, postgres_dsn: str) -> None:
    async with keeping(delay_s=0.05) as keeper:
        with sagad_process(folder, postgres_dsn, {"keeper": keeper.address}) as sagad:
            load = Load(sagad.address, keeper)
            async with load.client:
                await load.prepare()
                starting = asyncio.create_task(load.start())
                for _ in range(8):
                    await asyncio.sleep(0.05)
                    await _terminate_all(postgres_dsn)
                await starting
                await load.check()
                assert sagad.alive


@pytest.mark.parametrize("silent", [False, True], ids=["connection broken", "connection silent"])
async def test_commits_whose_answer_is_cut_off(folder: Path, postgres_dsn: str, silent: bool) -> None:
    async with keeping(delay_s=0.02) as keeper, proxied(postgres_dsn) as (proxy, dsn):
        section: dict[str, object] = {"dsn": dsn, "writer_silence": "1s"}
        with sagad_process(folder, dsn, {"keeper": keeper.address}, wait=False, postgres=section) as sagad:
            await asyncio.to_thread(sagad.wait_until_serving)
            load = Load(sagad.address, keeper)
            async with load.client:
                await load.prepare()
                starting = asyncio.create_task(load.start())
                for _ in range(2 if silent else 6):
                    lose = proxy.lose_answer_to if silent else proxy.cut_answer_to
                    lose(b"s-0")  # a commit names its sagas
                    with contextlib.suppress(TimeoutError):  # all may have ended already
                        await asyncio.wait_for(proxy.acted.wait(), 5)
                await starting
                await load.check()
                assert sagad.alive


async def _terminate_all(dsn: str) -> None:
    """Every connection of sagad's but that of its lock: pg_terminate_backend, as an administrator would."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity a"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory')"
        )
    finally:
        await connection.close()


async def _until(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + 30
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < give_up_at, f"not within 30 s: {what}"
        await asyncio.sleep(0.05)
