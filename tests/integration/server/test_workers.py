"""`sagad serve --workers N`: full nodes that share one port."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from support.keeper import keeping
from support.load import Load
from support.postgres import new_folder
from support.processes import SagadProcess

from sagad.v1.admin_service_pb2 import NodeState


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


def metrics(process: SagadProcess) -> str:
    with urlopen(f"http://{process.http}/metrics") as answer:
        text: str = answer.read().decode()
    return text


async def test_two_workers_share_the_port_and_a_dead_one_is_replaced(folder: Path, postgres_dsn: str) -> None:
    async with keeping(delay_s=0.05) as keeper:
        node: dict[str, object] = {"name": "pair", "lease": "2s"}
        sagad = SagadProcess(folder, postgres_dsn, {"keeper": keeper.address}, node=node)
        sagad.start("--workers", "2", wait=False)
        try:
            await asyncio.to_thread(sagad.wait_until_serving)
            load = Load(sagad.address, keeper)
            async with load.client:
                names = await live(load)
                await load.prepare()
                await load.start()
                victim = await asyncio.to_thread(worker_pid, "pair-1")
                os.kill(victim, signal.SIGKILL)
                await load.check()
                assert await live(load) == names == {"pair-1", "pair-2"}
                assert await asyncio.to_thread(worker_pid, "pair-1") != victim
            text = await asyncio.to_thread(metrics, sagad)
            wanted = [f'sagad_transitions_total{{worker="{name}"}}' for name in sorted(names)]
            while missing := [line for line in wanted if line not in text]:
                assert missing == wanted[:1]  # the new one needs a moment to answer
                text = await asyncio.to_thread(metrics, sagad)
            assert await asyncio.to_thread(sagad.terminate) == 0
        finally:
            if sagad.alive:
                sagad.kill()


async def live(load: Load) -> set[str]:
    """The names of the live nodes, once there are two."""
    while True:
        nodes = [node for node in await load.client.admin.nodes() if node.state == NodeState.NODE_STATE_LIVE]
        if len(nodes) >= 2:
            return {node.node_name for node in nodes}
        await asyncio.sleep(0.05)


def worker_pid(name: str) -> int:
    """The process that runs under a node name, once there is one."""
    while True:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"node.name={name}".encode() in words:
                return int(folder.name)
        time.sleep(0.05)
