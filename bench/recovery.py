"""Recovery: a node is killed with thousands of sagas in flight; how soon others, or itself again, have ended them."""

import signal
from contextlib import AsyncExitStack
from datetime import datetime

import asyncpg

from bench.backlog import start_all, until_none
from bench.database import fresh_database
from bench.processes import PYTHON, port_of, rss_mib, running
from bench.subjects import create_definitions, node

WITHIN_S = 600.0
ENDED = """
SELECT
    extract(epoch FROM min(end_time) - $1)::float8 AS first_end_s,
    extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY end_time) - $1)::float8 AS half_ended_s,
    extract(epoch FROM max(end_time) - $1)::float8 AS all_ended_s
FROM sagad.saga
"""


async def recovery(dsn: str, sagas: int, others: int) -> dict[str, float | str]:
    """Seconds from the kill, with so many other nodes; with none, the killed one is started again at once.

    The participant answers nothing until the kill, so that all the sagas are in flight then.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(fresh_database(dsn))
        command = (PYTHON, "-m", "bench.participant", "--sessions", "--hold")
        participant = await stack.enter_async_context(running(*command))
        port = await port_of(participant)
        doomed = await stack.enter_async_context(node(database, port, name="doomed"))
        await create_definitions(doomed.port)
        for number in range(others):
            await stack.enter_async_context(node(database, port, name=f"other-{number}"))
        idle_mib = rss_mib(doomed.process.pid)
        await start_all(doomed.port, "bench", [f"recovered-{number:012d}" for number in range(sagas)])
        held_mib = rss_mib(doomed.process.pid)

        connection = await asyncpg.connect(database)
        stack.push_async_callback(connection.close)
        kill_time: datetime = await connection.fetchval("SELECT clock_timestamp()")
        doomed.process.kill()
        await doomed.process.wait()
        participant.send_signal(signal.SIGUSR1)
        if not others:
            await stack.enter_async_context(node(database, port, name="doomed"))
        await until_none(connection, "state IN (1, 2)", WITHIN_S)
        ended = await connection.fetchrow(ENDED, kill_time)
        assert ended is not None
        taken_over_by = f"{others} others" if others else "itself"
        kib = (held_mib - idle_mib) * 1024 / sagas
        return {"taken over by": taken_over_by, "sagas": sagas, **ended, "kib_an_active_saga": kib}
