"""A real sagad that mirrors into a Kafka, sagas of all ends, and a database for their model."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from sagad.v1.saga_pb2 import Saga
from sagad_client.client import Client
from support import definitions as recipes
from support.mirror import journal
from support.processes import sagad_process
from support.projection import Documents, ProjectProcess, documents, projecting
from support.scripted_participant import ScriptedParticipant, failure, scripted_participant

LABELS = {"region": "eu", "a.b": "$set"}
_QUICK = {"maxRetries": 1, "retry": {"initialBackoff": "0.001s", "maxBackoff": "0.001s", "retryFor": "1s"}}
_RECIPES = [
    recipes.definition(recipes.step("pack", **_QUICK), recipes.step("charge", **_QUICK), definitionId="order"),
    recipes.definition(recipes.step("reserve", **_QUICK), recipes.step("refuse", **_QUICK), definitionId="refused"),
    recipes.definition(recipes.pivot("charge", **_QUICK), recipes.retriable("ship", **_QUICK), definitionId="stuck"),
]


@dataclass
class World:
    """Where everything is, and what can be done."""

    folder: Path
    client: Client
    participant: ScriptedParticipant
    dsn: str
    bootstrap_servers: str
    mongo_url: str
    topic: str
    database: str

    @property
    def address(self) -> str:
        return self.client._connection.target

    @property
    def mongo_port(self) -> int:
        port = urlsplit(self.mongo_url).port
        assert port is not None
        return port

    def projecting(
        self, *, mongo_url: str = "", database: str = "", group_id: str = "first"
    ) -> AbstractAsyncContextManager[ProjectProcess]:
        """`sagad project`; `database` is told from others by its end."""
        return projecting(
            self.folder,
            self.bootstrap_servers,
            self.topic,
            mongo_url or self.mongo_url,
            self.database + database,
            group_id,
        )

    async def run_sagas(self, turn: int) -> None:
        """Some of each kind, until they have ended or are parked; some after a failure or two."""
        self.participant.script("do_pack", failure("BUSY", retryable=True))
        starts = [
            self.client.start(recipe.definition_id, saga_id=f"{recipe.definition_id}-{turn}-{number}", labels=LABELS)
            for recipe, number in itertools.product(_RECIPES, range(4))
        ]
        sagas = await asyncio.gather(*starts)
        await asyncio.gather(*(self.client.wait(saga.saga_id) for saga in sagas))

    async def steer(self) -> None:
        """A saga that has succeeded is compensated, and a parked one abandoned."""
        await self.client.compensate("order-0-0", reason="cancelled")
        await self.client.wait("order-0-0")
        parked = await self.client.get("stuck-0-0")
        await self.client.abandon("stuck-0-0", revision=parked.revision, reason="settled by hand")

    async def sagas(self) -> list[Saga]:
        """All of them, as the coordinator lists them."""
        return [saga async for saga in self.client.list(page_size=1000)]

    async def event_count(self) -> int:
        return len(await journal(self.dsn))

    async def model(self, database: str = "") -> Documents:
        return await documents(self.mongo_url, self.database + database)

    async def until_model_has(self, sagas: list[Saga]) -> None:
        """Returns when it has each of them in its revision or a later one."""
        while True:
            revisions = {uid: each["revision"] for uid, each in (await self.model()).items()}
            if all(revisions.get(saga.uid, 0) >= saga.revision for saga in sagas):
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def projection_world(
    folder: Path, dsn: str, bootstrap_servers: str, mongo_url: str, database: str
) -> AsyncIterator[World]:
    """A running one."""
    async with scripted_participant() as participant:
        participant.always("do_refuse", failure("SOLD_OUT"))
        participant.always("do_ship", failure("NO_CARRIER"))
        topic = f"test-{uuid4().hex}"
        sections: dict[str, dict[str, object]] = {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "mirror": {"enabled": True, "topic": topic, "interval": "20ms"},
        }
        targets = {"inventory": participant.address}
        with sagad_process(folder, dsn, targets, wait=False, **sections) as process:
            await asyncio.to_thread(process.wait_until_serving)
            async with Client(process.address) as client:
                await _create(client, participant)
                yield World(folder, client, participant, dsn, bootstrap_servers, mongo_url, topic, database)


async def _create(client: Client, participant: ScriptedParticipant) -> None:
    steps = [step for recipe in _RECIPES for step in recipe.steps]
    undone = {step.compensation for step in steps if step.compensation}
    participant.implement(actions={step.action for step in steps}, compensations=undone)
    for recipe in _RECIPES:
        await client.definitions.create(recipe)
