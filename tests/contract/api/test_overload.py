"""A server that cannot keep up refuses new sagas, and tells when to come again; a stream of them waits."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from support.scripted_participant import ScriptedParticipant
from support.server import Server, chain, eventually, refused, rest, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad_client import Backoff, Client
from sagad_server.storage.store import Batch, Committed, Store


class Gate:
    """Commits of the store wait while it is closed."""

    def __init__(self, store: Store) -> None:
        self.opened = asyncio.Event()
        self._commit = store.commit
        store.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, batch: Batch) -> Committed:
        await self.opened.wait()
        return await self._commit(batch)


@pytest.fixture
async def server(store: Store, participant: ScriptedParticipant) -> AsyncIterator[Server]:
    limits = {"max_batch": 2, "overload_after": "20ms"}
    async with running_server(store, participant, limits=limits) as server:
        await server.create(chain("reserve", "charge"))
        yield server


async def overload(server: Server) -> "tuple[Gate, list[asyncio.Task[saga_pb2.Saga]]]":
    """Sagas that wait for their commit, for longer than the server likes."""
    gate = Gate(server.store)
    tasks = [asyncio.create_task(server.start(saga_id=f"s{number}", wait=True)) for number in range(6)]
    await eventually(lambda: server.engine.admission.overloaded)
    return gate, tasks


def gauge(server: Server, name: str, **labels: str) -> float | None:
    return server.metrics.registry.get_sample_value(name, labels)


async def test_an_overloaded_server_refuses_new_sagas_and_says_when_to_come_again(server: Server) -> None:
    gate, tasks = await overload(server)
    refusal = await refused(server.start(saga_id="late"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refusal.retry_after_s is not None
    assert 1 <= refusal.retry_after_s <= 2
    assert "limits.overload_after (20 ms)" in refusal.message
    assert gauge(server, "sagad_starts_refused_total", reason="OVERLOADED") == 1
    assert gauge(server, "sagad_overloaded") == 1
    assert gate.opened.set() is None
    await asyncio.gather(*tasks)


async def test_what_was_taken_on_is_not_lost_and_the_server_recovers(server: Server) -> None:
    gate, tasks = await overload(server)
    await refused(server.start(saga_id="late"))
    gate.opened.set()
    assert {saga.state for saga in await asyncio.gather(*tasks)} == {saga_pb2.SAGA_STATE_SUCCEEDED}
    await eventually(lambda: not server.engine.admission.overloaded)
    assert (await server.start(saga_id="late", wait=True)).state == saga_pb2.SAGA_STATE_SUCCEEDED
    assert gauge(server, "sagad_overloaded") == 0


async def test_reads_are_answered_meanwhile(server: Server) -> None:
    await server.start(saga_id="old", wait=True)
    gate, tasks = await overload(server)
    assert (await server.get("old")).state == saga_pb2.SAGA_STATE_SUCCEEDED
    gate.opened.set()
    await asyncio.gather(*tasks)


async def test_the_client_comes_again_by_itself(server: Server) -> None:
    gate, tasks = await overload(server)
    async with Client(server.address, backoff=Backoff(attempts=9, initial_s=0.001), timeout_s=60) as client:
        late = asyncio.create_task(client.start("order", None, saga_id="late"))
        await eventually(lambda: gauge(server, "sagad_starts_refused_total", reason="OVERLOADED") is not None)
        gate.opened.set()
        assert (await late).saga_id == "late"
    await asyncio.gather(*tasks)


async def test_a_stream_of_starts_waits_and_is_not_refused(server: Server) -> None:
    gate, tasks = await overload(server)
    sagas = [pb.StartSagaRequest(saga_id=f"streamed{number}", definition_id="order") for number in range(5)]
    call = server.sagas.StartSagas(iter([pb.StartSagasRequest(sagas=sagas)]))
    await eventually(lambda: len(server.app._sagas._starting) == 1)
    await refused(server.start(saga_id="late"))
    assert ("default", "streamed0") not in server.engine.sagas
    gate.opened.set()
    results = [result for message in await rest(call) for result in message.results]
    assert [result.WhichOneof("result") for result in results] == ["saga"] * 5
    await asyncio.gather(*tasks)
