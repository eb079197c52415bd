"""Nodes on one PostgreSQL, with nothing between them and the rest: where nodes are all that fails."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from support.processes import SagadProcess, Target


@asynccontextmanager
async def running_nodes(
    folder: Path,
    dsn: str,
    participants: Mapping[str, Target],
    ports: Sequence[int],
    *,
    lease_s: float,
    **sections: dict[str, object],
) -> AsyncIterator[list[SagadProcess]]:
    """One for each port, all of which serve. Gone afterwards."""
    async with AsyncExitStack() as stack:
        nodes = []
        for number, port in enumerate(ports):
            name = f"node-{number}"
            (folder / name).mkdir()
            own: dict[str, object] = {"name": name, "lease": f"{lease_s}s"}
            node = SagadProcess(folder / name, dsn, participants, port, node=own, **sections)
            node.start(wait=False)
            stack.callback(_end, node)
            nodes.append(node)
        await all_serve(nodes)
        yield nodes


async def all_serve(nodes: Sequence[SagadProcess]) -> None:
    """Returns when they do."""
    for node in nodes:
        await asyncio.to_thread(node.wait_until_serving)


async def serving(nodes: Sequence[SagadProcess]) -> list[SagadProcess]:
    """Those that do now."""
    answers = await asyncio.gather(*(asyncio.to_thread(node.serving, 0.5) for node in nodes))
    return [node for node, answer in zip(nodes, answers, strict=True) if answer]


def _end(node: SagadProcess) -> None:
    if node.alive:
        node.kill()
