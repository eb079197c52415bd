"""A server that cannot keep up refuses new sagas, and tells when to come again; a stream of them waits."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.scripted_participant import ScriptedParticipant, pending, success
from support.server import Server, chain, eventually, read_refusal, refused, rest, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad_client import Backoff, Client
from sagad_server.api.errors import DETAILS_KEY
from sagad_server.storage.store import Store
from sagad_server.storage.writes import Batch, Committed

MAX_BATCH = 2
CLIENTS = 1500
"""More than gRPC lets wait to be taken in: beyond, it cuts off calls itself."""
SOON_S = 10.0
"""For one call, beside all of them in one process on a busy machine."""
COMMIT_S = 0.03


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
    limits = {"max_batch": MAX_BATCH, "overload_after": "20ms"}
    async with running_server(store, participant, limits=limits) as server:
        await server.create(chain("reserve", "charge"))
        yield server


async def overload(server: Server) -> "tuple[Gate, list[asyncio.Task[saga_pb2.Saga]]]":
    """Sagas that wait for their commit, for longer than the server likes: so few that none is refused, however late."""
    gate = Gate(server.store)
    tasks = [asyncio.create_task(server.start(saga_id=f"s{number}", wait=True)) for number in range(MAX_BATCH)]
    await eventually(lambda: server.engine.admission.overloaded)
    return gate, tasks


def slow_down(store: Store) -> None:
    """From now on each commit takes longer than the server likes."""
    commit = store.commit

    async def slow(batch: Batch) -> Committed:
        await asyncio.sleep(COMMIT_S)
        return await commit(batch)

    store.commit = slow  # type: ignore[method-assign]


@asynccontextmanager
async def flood(server: Server) -> "AsyncIterator[Counter[str]]":
    """Clients that start one saga after the other, whatever becomes of it; counts how the calls end, and which
    refusals say when to come again."""
    ended: Counter[str] = Counter()

    async def run(client: int) -> None:
        for number in itertools.count():
            try:
                await server.start(saga_id=f"flood{client}-{number}")
            except grpc.aio.AioRpcError as error:
                told = DETAILS_KEY in dict(error.trailing_metadata() or ())
                ended["told to come again" if told else error.code().name] += 1
            else:
                ended["OK"] += 1

    clients = [asyncio.create_task(run(number)) for number in range(CLIENTS)]
    try:
        await eventually(lambda: ended["told to come again"] > CLIENTS)
        yield ended
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


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


async def test_each_start_that_an_overloaded_server_has_taken_in_is_told_when_to_come_again(server: Server) -> None:
    gate, tasks = await overload(server)
    late = [asyncio.create_task(server.start(saga_id=f"late{number}")) for number in range(200)]
    await eventually(lambda: sum(call.done() for call in late) > 150)  # now and then one is let in, and waits
    gate.opened.set()
    ended = await asyncio.gather(*late, return_exceptions=True)
    refusals = [read_refusal(error) for error in ended if isinstance(error, grpc.aio.AioRpcError)]
    assert {(one.code, one.reason) for one in refusals} == {(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")}
    pauses_s = {one.retry_after_s for one in refusals if one.retry_after_s is not None}
    assert 1 <= min(pauses_s) < max(pauses_s) <= 2, "not all at once"
    counted = {"method": "sagad.v1.SagaService/StartSaga", "code": "RESOURCE_EXHAUSTED"}
    await eventually(lambda: gauge(server, "sagad_requests_total", **counted) == len(refusals))
    await asyncio.gather(*tasks)


@pytest.fixture
async def busy_server(store: Store, participant: ScriptedParticipant) -> AsyncIterator[Server]:
    limits = {"max_batch": 64, "overload_after": "20ms"}
    async with running_server(store, participant, limits=limits) as server:
        await server.create(chain("reserve", "charge"))
        yield server


async def test_a_flood_of_starts_cuts_off_neither_what_is_under_way_nor_reads_nor_health_checks(
    busy_server: Server, participant: ScriptedParticipant
) -> None:
    server = busy_server
    participant.script("do_reserve", pending())
    await server.start(saga_id="before")
    token = (await participant.called("do_reserve")).completion_token
    while (await server.get("before")).steps[0].state != saga_pb2.STEP_STATE_AWAITING_COMPLETION:
        pass  # the participant's answer is not durable yet
    health = health_pb2_grpc.HealthStub(server.channel)
    slow_down(server.store)
    complete = pb.CompleteStepRequest(saga_id="before", step_id="reserve", completion_token=token, outcome=success())
    async with flood(server) as ended:
        for _ in range(3):
            assert (await server.sagas.GetSaga(pb.GetSagaRequest(saga_id="before"), timeout=SOON_S)).saga.revision
            checked = await health.Check(health_pb2.HealthCheckRequest(), timeout=SOON_S)
            assert checked.status == health_pb2.HealthCheckResponse.SERVING
        before = ended.total()
        await server.sagas.CompleteStep(complete, timeout=SOON_S)
        await eventually(lambda: ended.total() > before)
    assert ended.keys() == {"OK", "told to come again"}, "nobody is cut off without a word"
    assert (await server.settled("before")).state == saga_pb2.SAGA_STATE_SUCCEEDED


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
