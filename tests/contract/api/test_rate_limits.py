"""New sagas beyond a limit are refused, with the time when there is a token; streams of them and calls wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest
from support.scripted_participant import ScriptedParticipant, json_payload
from support.server import PARTICIPANT, UNREACHABLE, Server, chain, eventually, refused, rest, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import GetHealthDetailsRequest
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase
from sagad_server.storage.store import Store

SUCCEEDED = saga_pb2.SAGA_STATE_SUCCEEDED
SLOW = {"per_second": 0.01, "burst": 2}
in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)  # it is the same over every store


def limited(store: Store, participant: ScriptedParticipant, **kinds: Any) -> AbstractAsyncContextManager[Server]:
    return running_server(store, participant, rate_limits=kinds)


@pytest.fixture
async def server(store: Store, participant: ScriptedParticipant) -> AsyncIterator[Server]:
    """Where anybody may start two sagas of the definition `order`, and then one every 100 s."""
    async with limited(store, participant, definitions={"overrides": {"default/order": SLOW}}) as server:
        await server.create(chain("reserve"))
        await server.create(chain("reserve", definitionId="free"))
        yield server


def counted(server: Server, name: str, **labels: str) -> float:
    return server.metrics.registry.get_sample_value(name, labels) or 0.0


async def exhaust(server: Server) -> None:
    for number in range(2):
        await server.start(saga_id=f"s{number}", wait=True)


async def test_a_start_beyond_a_limit_is_refused_by_name_with_the_time_of_the_next_token(server: Server) -> None:
    await exhaust(server)
    refusal = await refused(server.start(saga_id="late"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refusal.metadata == {"kind": "definition", "name": "default/order", "per_second": "0.01", "burst": "2"}
    assert refusal.retry_after_s is not None
    assert 90 < refusal.retry_after_s <= 100
    assert "(0.01 a second, 2 at once)" in refusal.message
    assert counted(server, "sagad_starts_refused_total", reason="RATE_LIMITED") == 1
    assert counted(server, "sagad_rate_limited_total", kind="definition") == 1
    assert ("default", "late") not in server.engine.sagas


async def test_a_repeat_is_answered_whatever_the_limit_says(server: Server) -> None:
    await exhaust(server)
    assert ("default", "s0") not in server.engine.sagas
    assert (await server.start(saga_id="s0", wait=True)).state == SUCCEEDED
    refusal = await refused(server.start(saga_id="s0", input={"n": 1}))
    assert refusal.reason == "SAGA_EXISTS"


async def test_a_repeat_of_a_saga_that_runs_uses_no_token(server: Server, participant: ScriptedParticipant) -> None:
    held = participant.hold("do_reserve")
    participant.always("do_reserve", held)
    for _ in range(5):
        await server.start(saga_id="s0")
    await server.start(saga_id="s1")
    assert (await refused(server.start(saga_id="s2"))).reason == "RATE_LIMITED"
    held.release()


@in_memory
async def test_a_limit_is_of_its_name_alone(server: Server) -> None:
    await exhaust(server)
    for number in range(5):
        assert (await server.start("free", saga_id=f"free{number}", wait=True)).state == SUCCEEDED


@in_memory
async def test_a_client_is_its_address_over_whatever_connection(store: Store, participant: ScriptedParticipant) -> None:
    async with limited(store, participant, clients={"default": SLOW}) as server:
        await server.create(chain("reserve"))
        await exhaust(server)
        async with grpc.aio.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
            again = Server(server.address, other, participant, store, server.engine, server.metrics, server.app)
            refusal = await refused(again.start(saga_id="late"))
        assert (refusal.metadata["kind"], refusal.metadata["name"]) == ("client", "127.0.0.1")


@in_memory
async def test_a_client_may_have_a_rate_of_its_own(store: Store, participant: ScriptedParticipant) -> None:
    clients = {"default": {"per_second": 0.01, "burst": 1}, "overrides": {"127.0.0.1": {"per_second": 1, "burst": 50}}}
    async with limited(store, participant, clients=clients) as server:
        await server.create(chain("reserve"))
        for number in range(20):
            await server.start(saga_id=f"s{number}")


@in_memory
async def test_a_stream_of_starts_is_slowed_and_none_of_its_sagas_is_refused(
    store: Store, participant: ScriptedParticipant
) -> None:
    async with limited(store, participant, definitions={"default": {"per_second": 50, "burst": 5}}) as server:
        await server.create(chain("reserve"))
        sagas = [pb.StartSagaRequest(saga_id=f"s{number}", definition_id="order", wait=True) for number in range(25)]
        began = asyncio.get_running_loop().time()
        call = server.sagas.StartSagas(iter([pb.StartSagasRequest(sagas=sagas)]))
        results = [result for message in await rest(call) for result in message.results]
        elapsed_s = asyncio.get_running_loop().time() - began
        assert {result.saga.state for result in results} == {SUCCEEDED}
        assert len(results) == 25
        assert elapsed_s >= (25 - 5) / 50
        assert counted(server, "sagad_rate_limited_total", kind="definition") >= 1
        assert counted(server, "sagad_starts_refused_total", reason="RATE_LIMITED") == 0


@in_memory
async def test_a_stream_of_repeats_does_not_wait(server: Server) -> None:
    await exhaust(server)
    sagas = [pb.StartSagaRequest(saga_id=f"s{number % 2}", definition_id="order") for number in range(20)]
    call = server.sagas.StartSagas(iter([pb.StartSagasRequest(sagas=sagas)]))
    results = [result for message in await rest(call) for result in message.results]
    assert {result.saga.state for result in results} == {SUCCEEDED}


@in_memory
async def test_a_stream_that_waits_for_a_token_ends_when_the_node_drains(server: Server) -> None:
    await exhaust(server)
    sagas = [pb.StartSagaRequest(saga_id=saga_id, definition_id="order") for saga_id in ("s0", "late", "later")]
    call = server.sagas.StartSagas(iter([pb.StartSagasRequest(sagas=sagas)]))
    assert (await call.read()).results[0].saga_id == "s0"
    await eventually(lambda: counted(server, "sagad_rate_limited_total", kind="definition") == 1)
    stopping = asyncio.create_task(server.app.stop())
    (result,) = (await call.read()).results
    assert result.saga_id == "late"
    assert result.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    with pytest.raises(grpc.aio.AioRpcError):
        await rest(call)
    await stopping
    assert ("default", "late") not in server.engine.sagas


@in_memory
async def test_calls_of_a_limited_participant_wait_and_those_of_another_do_not(
    store: Store, participant: ScriptedParticipant
) -> None:
    rates = {"overrides": {PARTICIPANT: SLOW}}
    addresses = {UNREACHABLE: {"target": participant.address}}
    both = running_server(store, participant, rate_limits={"participants": rates}, participants=addresses)
    async with both as server:
        await server.create(chain("reserve"))
        free = chain("reserve", definitionId="free")
        free.steps[0].participant = UNREACHABLE
        await server.create(free)
        held_up = [await server.start(saga_id=f"s{number}") for number in range(4)]
        for number in range(5):
            saga = await server.start("free", saga_id=f"free{number}", wait=True)
            assert saga.state == SUCCEEDED
        await eventually(lambda: server.app.transport.states()[PARTICIPANT].queued == 2)
        sagas = [await server.get(saga.saga_id) for saga in held_up]
        assert sorted(saga.state for saga in sagas) == [1, 1, SUCCEEDED, SUCCEEDED]
        assert {saga.steps[0].attempt for saga in sagas if saga.state == 1} == {1}
        assert counted(server, "sagad_rate_limited_total", kind="participant") >= 1


@in_memory
async def test_a_call_that_waits_for_a_token_runs_into_no_timeout(
    store: Store, participant: ScriptedParticipant
) -> None:
    rates = {"overrides": {PARTICIPANT: {"per_second": 2, "burst": 1}}}
    async with limited(store, participant, participants=rates) as server:
        quick = chain("reserve")
        quick.steps[0].timeout.FromMilliseconds(1000)
        await server.create(quick)
        first = await server.start(saga_id="first", input={"n": 1}, wait=True)
        rest_of_them = await asyncio.gather(*(server.start(saga_id=f"s{n}", wait=True) for n in range(4)))
        assert {saga.state for saga in (first, *rest_of_them)} == {SUCCEEDED}
        assert {saga.steps[0].attempt for saga in rest_of_them} == {1}


@in_memory
async def test_without_redis_it_is_no_component_of_health(server: Server) -> None:
    components = (await server.admin.GetHealthDetails(GetHealthDetailsRequest())).components
    assert "redis" not in {component.name for component in components}


async def test_a_repeat_through_another_node_is_answered_whatever_the_limit_says(
    participant: ScriptedParticipant,
) -> None:
    database = MemoryDatabase()
    rates = {"clients": {"default": {"per_second": 0.01, "burst": 1}}}
    first = running_server(MemoryStore(database), participant, node={"name": "one"}, rate_limits=rates)
    second = running_server(MemoryStore(database), participant, node={"name": "two"}, rate_limits=rates)
    async with first as one, second as two:
        await one.create(chain("reserve"))
        held = participant.hold("do_reserve")
        participant.always("do_reserve", held)
        content = json_payload({"n": 1})
        await one.sagas.StartSaga(pb.StartSagaRequest(saga_id="s0", definition_id="order", input=content))
        await two.start(saga_id="other")
        assert (await refused(two.start(saga_id="another"))).reason == "RATE_LIMITED"
        repeat = pb.StartSagaRequest(saga_id="s0", definition_id="order", input=content, wait=True)
        waiting = asyncio.create_task(_start(two, repeat))
        held.release()
        assert (await waiting).state == SUCCEEDED


async def _start(server: Server, request: pb.StartSagaRequest) -> saga_pb2.Saga:
    saga: saga_pb2.Saga = (await server.sagas.StartSaga(request)).saga
    return saga
