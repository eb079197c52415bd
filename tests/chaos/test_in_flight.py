"""A node dies with thousands of sagas in flight, and stays dead; two others live."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import grpc
import pytest
from support.chaos.gate import NAME, Gate
from support.chaos.nodes import running_nodes
from support.chaos.report import Row, report
from support.chaos.waiting import until
from support.postgres import database, new_folder
from support.processes import SagadProcess, free_port

from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.definition_pb2 import Definition
from sagad.v1.saga_service_pb2_grpc import SagaServiceStub
from sagad_client import Client

SAGAS = int(os.environ.get("SAGAD_CHAOS_IN_FLIGHT", "2000"))
LEASE_S = 8
"""The default."""
MOST_S = 30.0
A_MESSAGE = 100
WHAT = (
    "A node gets SIGKILL while a participant has a call of each of its sagas, and stays dead; two others live. "
    f"The lease is {LEASE_S} s, and {os.cpu_count()} CPUs hold all of it."
)
MOVING = "SELECT count(*) FROM sagad.saga WHERE state IN (1, 2)"
TIMES = """
SELECT
    extract(epoch FROM min(e.time) FILTER (WHERE e.cause = 10) - $1)::float8 AS adopted_first_s,
    extract(epoch FROM max(e.time) FILTER (WHERE e.cause = 10) - $1)::float8 AS adopted_last_s,
    extract(epoch FROM min(s.end_time) - $1)::float8 AS ended_first_s,
    extract(epoch FROM max(s.end_time) - $1)::float8 AS ended_last_s,
    array_agg(DISTINCT s.saga_id) FILTER (WHERE s.state = 4) AS succeeded
FROM sagad.saga AS s JOIN sagad.event AS e USING (namespace, saga_id)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


async def start_all(address: str, definition: Definition, saga_ids: list[str]) -> None:
    """On one node, by one stream."""
    async with Client(address) as client:
        await client.definitions.create(definition)
    async with grpc.aio.insecure_channel(address) as channel:
        stream = SagaServiceStub(channel).StartSagas()

        async def send() -> None:
            for first in range(0, len(saga_ids), A_MESSAGE):
                sagas = [
                    pb.StartSagaRequest(saga_id=saga_id, definition_id=NAME)
                    for saga_id in saga_ids[first : first + A_MESSAGE]
                ]
                await stream.write(pb.StartSagasRequest(sagas=sagas))
            await stream.done_writing()

        sending = asyncio.create_task(send())
        started = [result.saga.saga_id async for response in stream for result in response.results]
        await sending
    assert sorted(started) == saga_ids


async def kill_and_open(node: SagadProcess, gate: Gate, dsn: str) -> asyncpg.Record:
    """Kills the node, lets the participant answer at the same moment, and returns TIMES once all have ended."""
    connection = await asyncpg.connect(dsn)
    try:
        death = await connection.fetchval("SELECT clock_timestamp()")
        node.kill()
        gate.open.set()

        async def all_have_ended() -> bool:
            return await connection.fetchval(MOVING) == 0

        await until(all_have_ended, 300, "all sagas have ended", every_s=0.5)
        times = await connection.fetchrow(TIMES, death)
        assert times is not None
        return times
    finally:
        await connection.close()


@pytest.mark.timeout(900)
async def test_what_a_killed_node_had_in_flight_has_all_ended_within_30_s_of_its_death(
    folder: Path, postgres_server_dsn: str, say: Callable[[str], None]
) -> None:
    saga_ids = [f"s-{number:06d}" for number in range(SAGAS)]
    ports = [free_port() for _ in range(3)]
    with database(postgres_server_dsn) as dsn:
        async with Gate().serving(SAGAS) as gate:
            participants = {NAME: {"target": gate.address, "max_in_flight": SAGAS}}
            async with running_nodes(folder, dsn, participants, ports, lease_s=LEASE_S) as nodes:
                await start_all(nodes[0].address, gate.definition(), saga_ids)
                await until(lambda: gate.holds(SAGAS), 120, f"{SAGAS} calls wait at the gate")
                load = os.getloadavg()[0]
                times = await kill_and_open(nodes[0], gate, dsn)
    say(
        f"{SAGAS:,} sagas in flight on a killed node, lease {LEASE_S} s, load average {load:.1f}: "
        f"adopted {times['adopted_first_s']:.1f}-{times['adopted_last_s']:.1f} s after its death, "
        f"ended {times['ended_first_s']:.1f}-{times['ended_last_s']:.1f} s after it"
    )
    assert sorted(times["succeeded"]) == saga_ids
    assert gate.violations(set(saga_ids)) == []
    report([Row("node killed with all in flight", WHAT, 1, SAGAS, "nothing", [times["ended_last_s"]])])
    assert times["ended_last_s"] < MOST_S
