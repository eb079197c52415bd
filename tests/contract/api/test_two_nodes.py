"""Two nodes over one database: any of them answers for any saga."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
from support.scripted_participant import ScriptedParticipant, pending, success
from support.server import Server, chain, eventually, rest, running_server

from sagad.v1 import admin_service_pb2 as admin_pb
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.common_pb2 import StepOutcome, StepSuccess
from sagad.v1.saga_pb2 import SagaState
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase


@dataclass
class Pair:
    one: Server
    two: Server


@pytest.fixture
async def pair(participant: ScriptedParticipant) -> AsyncIterator[Pair]:
    database = MemoryDatabase()
    first = running_server(MemoryStore(database), participant, node={"name": "one", "lease": "1s"})
    second = running_server(MemoryStore(database), participant, node={"name": "two", "lease": "1s"})
    async with first as one, second as two:
        yield Pair(one, two)


async def test_a_saga_of_another_node_is_compensated_by_its_owner(pair: Pair, participant: ScriptedParticipant) -> None:
    await pair.one.create(chain("aa", "bb"))
    held = participant.hold("do_bb")
    await pair.one.start(saga_id="s")
    await participant.called("do_bb")
    answer = await pair.two.sagas.CompensateSaga(pb.CompensateSagaRequest(saga_id="s", reason="changed my mind"))
    assert answer.saga.state == SagaState.SAGA_STATE_COMPENSATING
    held.release(success())
    assert (await pair.two.settled("s")).state == SagaState.SAGA_STATE_COMPENSATED
    events = (await pair.two.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s"))).events
    (asked,) = [event for event in events if event.reason]
    assert asked.actor.startswith("ipv4:"), "whoever called the first node"


async def test_a_pending_step_is_completed_through_any_node(pair: Pair, participant: ScriptedParticipant) -> None:
    await pair.one.create(chain("aa"))
    participant.script("do_aa", pending())
    await pair.one.start(saga_id="s")
    await participant.called("do_aa")
    token = participant.calls[0].completion_token
    outcome = StepOutcome(success=StepSuccess())
    request = pb.CompleteStepRequest(saga_id="s", step_id="aa", completion_token=token, outcome=outcome)
    assert (await pair.two.sagas.CompleteStep(request)).saga.state == SagaState.SAGA_STATE_SUCCEEDED


async def test_a_refusal_of_the_owner_comes_back_as_it_is(pair: Pair, participant: ScriptedParticipant) -> None:
    await pair.one.create(chain("aa"))
    held = participant.hold("do_aa")
    await pair.one.start(saga_id="s")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pair.two.sagas.AbandonSaga(pb.AbandonSagaRequest(saga_id="s", revision=1, reason="no"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert any(key == "grpc-status-details-bin" for key, _ in caught.value.trailing_metadata() or ())
    held.release()


async def test_a_repeated_start_waits_at_the_owner(pair: Pair, participant: ScriptedParticipant) -> None:
    await pair.one.create(chain("aa"))
    held = participant.hold("do_aa")
    await pair.one.start(saga_id="s")
    waiting = asyncio.create_task(pair.two.start(saga_id="s", wait=True))
    await participant.called("do_aa")
    held.release()
    assert (await waiting).state == SagaState.SAGA_STATE_SUCCEEDED
    assert len(participant.calls) == 1


async def test_a_watch_at_another_node_misses_nothing(pair: Pair, participant: ScriptedParticipant) -> None:
    await pair.one.create(chain("aa", "bb"))
    held = participant.hold("do_aa")
    await pair.one.start(saga_id="s")
    stream = pair.two.sagas.WatchSaga(pb.WatchSagaRequest(saga_id="s"))
    assert (await stream.read()).revision == 1
    held.release()
    assert [message.revision for message in await rest(stream)] == [2, 3]


async def test_the_sagas_of_a_node_that_drains_go_on_at_the_other(pair: Pair, participant: ScriptedParticipant) -> None:
    definition = chain("aa", "bb")
    definition.steps[0].completion_timeout.seconds = 50  # short enough for it to stay in memory
    await pair.one.create(definition)
    participant.script("do_aa", pending())
    await pair.one.start(saga_id="s")
    await participant.called("do_aa")
    await pair.two.admin.DrainNode(admin_pb.DrainNodeRequest(node_name="one"))
    await eventually(lambda: pair.one.app.stopping)
    await pair.one.app.stop()
    await eventually(lambda: ("default", "s") in pair.two.engine.sagas)
    nodes = (await pair.two.admin.ListNodes(admin_pb.ListNodesRequest())).nodes
    assert [(node.node_name, admin_pb.NodeState.Name(node.state), node.sagas) for node in nodes] == [
        ("one", "NODE_STATE_DEAD", 0),
        ("two", "NODE_STATE_LIVE", 1),
    ]


async def test_a_node_that_is_not_there_cannot_be_drained(pair: Pair) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pair.two.admin.DrainNode(admin_pb.DrainNodeRequest(node_name="three"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "one, two" in (caught.value.details() or "")
