"""What the README's reader has in front of them after `make run`."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.example_participants import examples
from support.postgres import database, new_folder
from support.processes import free_port, sagad_process

from sagad_client import Client, load_definitions
from sagad_examples.definition_files import definition_files


@dataclass(frozen=True)
class Running:
    """sagad with the example participants, and an address for a participant of the reader's own."""

    address: str
    seats: str


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


@pytest.fixture
async def running(folder: Path, postgres_server_dsn: str) -> AsyncIterator[Running]:
    port, seats = free_port(), f"127.0.0.1:{free_port()}"
    with database(postgres_server_dsn) as dsn, database(postgres_server_dsn) as examples_dsn:
        async with examples(examples_dsn, sagad=f"127.0.0.1:{port}") as served:
            participants = {**served.addresses, "seats": seats}
            with sagad_process(folder, dsn, participants, port) as sagad:
                async with Client(sagad.address) as client:
                    for path in definition_files():
                        for definition in load_definitions(path):
                            await client.definitions.create(definition)
                yield Running(sagad.address, seats)
