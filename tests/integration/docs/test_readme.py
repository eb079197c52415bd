"""The README's blocks of code do what the README says, as written."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.definitions import definition, step
from support.page_runner import PageRunner, has_grpcurl
from support.pages import ROOT, Block, blocks

from sagad.v1.saga_pb2 import SagaState
from sagad_client import Client

README = ROOT / "README.md"
BLOCKS = blocks(README)


@pytest.fixture
def reader(running: Any, folder: Path) -> Iterator[PageRunner]:
    runner = PageRunner(README, folder, {"127.0.0.1:7400": running.address, "127.0.0.1:7421": running.seats})
    try:
        yield runner
    finally:
        runner.stop()


def written_in(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


async def test_the_grpcurl_lines_work_as_pasted(reader: PageRunner) -> None:
    if not has_grpcurl():
        pytest.skip("grpcurl is not on the PATH, so that the README's lines are not tried: put it there")
    commands = [block for block in BLOCKS if block.language in ("sh", "json", "text")]
    assert sum("grpcurl" in block.text for block in commands) >= 5
    for block in commands:
        await asyncio.to_thread(reader.step, block)


async def test_the_python_client_works_as_pasted(reader: PageRunner) -> None:
    (client,) = (block for block in written_in("python") if "Client(" in block.text)
    await asyncio.to_thread(reader.step, client)
    assert reader.output.splitlines()[-1] == "order-7 SAGA_STATE_SUCCEEDED"


async def test_the_participant_works_as_pasted(reader: PageRunner, running: Any) -> None:
    (participant,) = (block for block in written_in("python") if "Participant(" in block.text)
    reader.step(participant)
    async with Client(running.address) as client:
        async with asyncio.timeout(30):
            while not all(one.reachable for one in await client.admin.participants()):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        seat = step("seat", participant="seats", action="reserve_seat", compensation="release_seat")
        await client.definitions.create(definition(seat, definitionId="seat"))
        first = await client.start("seat", {"seat": "A1"}, wait=True)
        again = await client.start("seat", {"seat": "A1"}, wait=True)
        assert first.state == SagaState.SAGA_STATE_SUCCEEDED
        assert (again.state, again.failure.reason) == (SagaState.SAGA_STATE_COMPENSATED, "SEAT_TAKEN")
        await client.compensate(first.saga_id)
        assert (await client.wait(first.saga_id)).state == SagaState.SAGA_STATE_COMPENSATED
        third = await client.start("seat", {"seat": "A1"}, wait=True)
        assert third.state == SagaState.SAGA_STATE_SUCCEEDED
