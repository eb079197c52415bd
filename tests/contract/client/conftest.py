"""A whole sagad for each test, on a database of its own, with the participant `echo`."""

from collections.abc import AsyncIterator

import pytest
from support.scripted_participant import scripted_participant

from sagad_server.app import App
from sagad_server.config import load_config


@pytest.fixture
async def sagad(postgres_dsn: str) -> AsyncIterator[App]:
    async with scripted_participant() as echo:
        echo.implement(actions=["do"], compensations=["undo"])
        sections = {
            "grpc": {"address": "127.0.0.1:0"},
            "http": {"address": "127.0.0.1:0"},
            "postgres": {"dsn": postgres_dsn},
            "participants": {"echo": {"target": echo.address}},
        }
        app = App(load_config(None, {}, sections))
        await app.start()
        try:
            yield app
        finally:
            await app.stop()
