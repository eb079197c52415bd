"""What is written to MongoDB, and when."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from support.projection import documents

from sagad.v1.saga_pb2 import SAGA_STATE_RUNNING, SAGA_STATE_SUCCEEDED, SagaEvent
from sagad_server.projection.model import Conflict, Model


@pytest.fixture
async def client(mongo_url: str) -> AsyncIterator[AsyncMongoClient[Any]]:
    async with AsyncMongoClient[Any](mongo_url, tz_aware=True) as client:
        yield client


@pytest.fixture
async def model(client: AsyncMongoClient[Any], database: str) -> Model:
    model = Model(client, database, marks_gaps=False)
    await model.prepare()
    return model


def events(uid: str, *revisions: int) -> list[SagaEvent]:
    made = [
        SagaEvent(namespace="default", saga_id="order-1", uid=uid, revision=revision, state=SAGA_STATE_RUNNING)
        for revision in revisions
    ]
    for event in made:
        event.time.FromSeconds(1_000_000 + event.revision)
    return made


async def test_what_was_written_once_is_written_once(model: Model) -> None:
    assert await model.apply(events("a", 1, 2)) == 1
    assert await model.apply(events("a", 1, 2)) == 0
    assert await model.apply(events("a", 2, 3)) == 1


async def test_a_saga_id_that_is_used_again_has_a_document_for_each_saga(
    model: Model, mongo_url: str, database: str
) -> None:
    await model.apply([*events("a", 1, 2), *events("b", 1)])
    found = await documents(mongo_url, database)
    assert {uid: each["revision"] for uid, each in found.items()} == {"a": 2, "b": 1}


@pytest.mark.parametrize("known", [0, 1])
async def test_of_two_that_write_one_saga_the_slower_is_refused_and_nothing_turns_back(
    model: Model, client: AsyncMongoClient[Any], mongo_url: str, database: str, known: int
) -> None:
    if known:
        await model.apply(events("a", 1))
    slow = Model(Overtaken(client, lambda: model.apply(events("a", 1, 2, 3))), database, marks_gaps=False)  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        await slow.apply(events("a", 1, 2))
    assert (await documents(mongo_url, database))["a"]["revision"] == 3
    assert await model.apply(events("a", 1, 2)) == 0


async def test_what_was_read_and_then_lost_by_a_fail_over_is_not_taken_for_done(
    model: Model, client: AsyncMongoClient[Any], database: str
) -> None:
    await model.apply(events("a", 1, 2))

    async def roll_back() -> None:
        await client[database]["sagas"].delete_one({"_id": "a"})
        await model.apply(events("a", 1))

    repeated = Model(Overtaken(client, roll_back), database, marks_gaps=False)  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        await repeated.apply(events("a", 2))
    assert await model.apply(events("a", 2)) == 1


class Overtaken:
    """A client between whose reading and writing something happens."""

    def __init__(self, client: AsyncMongoClient[Any], happens: Any) -> None:
        self._target: Any = client
        self._happens = happens

    def __getitem__(self, database: str) -> "Overtaken":
        return Overtaken(self._target[database], self._happens)

    def get_collection(self, *arguments: Any, **options: Any) -> "Overtaken":
        return Overtaken(self._target.get_collection(*arguments, **options), self._happens)

    def find(self, *arguments: Any) -> Any:
        return self._target.find(*arguments)

    async def bulk_write(self, *arguments: Any, **options: Any) -> Any:
        await self._happens()
        return await self._target.bulk_write(*arguments, **options)


async def test_many_processes_on_the_same_events_end_in_the_same_model(
    model: Model, mongo_url: str, database: str
) -> None:
    all_events = [event for number in range(20) for event in events(f"saga-{number}", 1, 2, 3, 4)]
    all_events[-1].state = SAGA_STATE_SUCCEEDED

    async def apply() -> None:
        while True:
            try:
                await model.apply(all_events)
            except Conflict:
                continue
            return

    await asyncio.gather(*(apply() for _ in range(4)))
    found = await documents(mongo_url, database)
    assert {each["revision"] for each in found.values()} == {4}
    assert len(found) == 20
