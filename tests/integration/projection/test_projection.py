"""`sagad project` between a real Kafka and a server that speaks MongoDB's protocol, beside a real sagad."""

import asyncio
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from support.projection import Documents
from support.projection_world import World
from support.proxy import Proxy

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1.saga_pb2 import Saga


def as_document(saga: Saga) -> dict[str, Any]:
    """What of a saga is in its document too."""
    return {
        "_id": saga.uid,
        "namespace": saga.namespace,
        "saga_id": saga.saga_id,
        "definition_id": saga.definition_id,
        "version": saga.version,
        "labels": [{"key": key, "value": value} for key, value in sorted(saga.labels.items())],
        "state": saga_pb2.SagaState.Name(saga.state).removeprefix("SAGA_STATE_"),
        "revision": saga.revision,
        "create_time": milliseconds(saga.create_time),
        "update_time": milliseconds(saga.update_time),
        "end_time": milliseconds(saga.end_time) if saga.HasField("end_time") else None,
        "failure": {
            "step_id": saga.failure.step_id,
            "category": common_pb2.FailureCategory.Name(saga.failure.category).removeprefix("FAILURE_CATEGORY_"),
            "reason": saga.failure.reason,
        }
        if saga.HasField("failure")
        else None,
        "steps": {
            step.step_id: (
                saga_pb2.StepState.Name(step.state).removeprefix("STEP_STATE_"),
                step.attempt,
                step.compensation_attempt,
            )
            for step in saga.steps
            if step.state != saga_pb2.STEP_STATE_NOT_STARTED
        },
    }


def milliseconds(time: Timestamp) -> int:
    return time.ToMilliseconds()


def of_the_coordinator(documents: Documents) -> Documents:
    """The documents without what the coordinator does not tell in one piece."""
    found: Documents = {}
    for uid, document in documents.items():
        assert document["complete"]
        kept = {name: value for name, value in document.items() if name in as_document(Saga())}
        for name in ("create_time", "update_time", "end_time"):
            kept[name] = kept[name] and round(kept[name].timestamp() * 1000)
        kept["steps"] = {
            step["step_id"]: (step["state"], step["attempt"], step["compensation_attempt"]) for step in kept["steps"]
        }
        found[uid] = kept
    return found


async def test_the_model_is_what_the_coordinator_says_through_kills_and_a_replay(world: World) -> None:
    async with world.projecting() as project:
        await world.run_sagas(0)
        await project.until("sagad_projection_documents_total", 1)
        project.kill()
        await world.run_sagas(1)
        await world.steer()
        project.start()
        await asyncio.gather(world.run_sagas(2), project.until("sagad_projection_events_total", 1))
        project.kill()
        project.start()
        sagas = await world.sagas()
        await world.until_model_has(sagas)
        model = await world.model()
        assert of_the_coordinator(model) == {saga.uid: as_document(saga) for saga in sagas}
        assert {document["state"] for document in model.values()} == {
            "SUCCEEDED",
            "COMPENSATED",
            "PARKED",
            "ABANDONED",
        }
        while await project.metric("sagad_projection_lag_events") != 0:  # noqa: ASYNC110 - nobody else tells
            await asyncio.sleep(0.05)
        assert await project.terminate() == 0

    events = await world.event_count()
    async with world.projecting(group_id="again") as over, world.projecting(group_id="new", database="new") as new:
        for replay in (over, new):
            await replay.until("sagad_projection_events_total", events)
        assert await over.metric("sagad_projection_documents_total") == 0
    assert await world.model() == model
    assert await world.model("new") == model


async def test_the_projection_goes_on_by_itself_when_mongodb_is_back(world: World) -> None:
    proxy = Proxy(world.mongo_port)
    async with proxy.running(), world.projecting(mongo_url=f"mongodb://{proxy.address}") as project:
        await world.run_sagas(0)
        await project.until("sagad_projection_documents_total", 1)
        assert await project.healthy()
        proxy.refuse()
        await world.run_sagas(1)
        await project.until("sagad_projection_failures_total", 1)
        assert not await project.healthy()
        proxy.refuse(False)
        sagas = await world.sagas()
        await world.until_model_has(sagas)
        assert of_the_coordinator(await world.model()) == {saga.uid: as_document(saga) for saga in sagas}
        while not await project.healthy():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
