"""`make run`: sagad and the example participants on this machine, until Ctrl-C."""

import asyncio
import signal
import sys
from pathlib import Path

import cyclopts
from rich.console import Console
from rich.syntax import Syntax

from sagad_client import Client, SagadError
from sagad_examples.local import Local, LocalError, stopping
from sagad_server.embedded import EmbeddedPostgresError

_LINES = """\
grpcurl -plaintext {address} list
grpcurl -plaintext -d '{{"definition_id": "order", "saga_id": "order-1", "wait": true, "input": {{"json": \
{{"order_id": "order-1", "customer": "alice", "sku": "apple", "quantity": 2, "amount_cents": 700}}}}}}' {address} \
sagad.v1.SagaService/StartSaga
grpcurl -plaintext -d '{{"saga_id": "order-1"}}' {address} sagad.v1.SagaService/WatchSaga
grpcurl -plaintext -d '{{"saga_id": "order-1", "reason": "changed my mind"}}' {address} \
sagad.v1.SagaService/CompensateSaga
sagactl --server {address} list
"""


async def _run(console: Console, data_dir: Path | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    local = Local("run", data_dir)
    await local.prepare()
    processes = [local.participants()]
    with stopping(processes):
        processes.append(local.sagad())
        async with Client(local.address) as client:
            await local.ready(client, *processes)
            definitions = await local.apply_definitions(client)
        console.print(f"sagad serves at {local.address}, with the definitions {', '.join(definitions)}.")
        console.print(f"Logs are in {local.folder}. Paste one of these into another terminal; Ctrl-C ends it.\n")
        if console.is_terminal:
            console.print(Syntax(_LINES.format(address=local.address), "bash", word_wrap=True))
        else:
            sys.stdout.write(_LINES.format(address=local.address))
            sys.stdout.flush()
        while not stop.is_set():
            for process in processes:
                process.check()
            try:
                await asyncio.wait_for(stop.wait(), 1)
            except TimeoutError:
                continue


def main(*, data_dir: Path | None = None) -> None:
    """Keeps its data in `data_dir`; default: a folder of its own beside that of `sagad dev`."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        asyncio.run(_run(console, data_dir))
    except (LocalError, EmbeddedPostgresError, SagadError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    cyclopts.run(main)
