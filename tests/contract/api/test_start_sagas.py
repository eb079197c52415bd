"""StartSagas: StartSaga for many, over one stream that no single saga can break."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from support.scripted_participant import Held, ScriptedParticipant, failure, json_payload, pending, success
from support.server import Server, chain, eventually, read_refusal, rest, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasRequest
from sagad_server.api import start_sagas
from sagad_server.api.start_sagas import StartSagas
from sagad_server.domain.errors import ResourceExhausted, Unavailable
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase

RUNNING, SUCCEEDED = saga_pb2.SAGA_STATE_RUNNING, saga_pb2.SAGA_STATE_SUCCEEDED
in_memory = pytest.mark.parametrize("store", ["memory"], indirect=True)  # it is the same over every store


@pytest.fixture(autouse=True)
async def _order(server: Server) -> None:
    await server.create(chain("reserve", "charge"))


def order(saga_id: str, **fields: Any) -> pb.StartSagaRequest:
    return pb.StartSagaRequest(**{"saga_id": saga_id, "definition_id": "order", **fields})


def orders(count: int, **fields: Any) -> list[pb.StartSagaRequest]:
    return [order(f"s{n}", **fields) for n in range(count)]


def hold_all(participant: ScriptedParticipant, name: str) -> Held:
    """Lets every call of the name hang."""
    held = participant.hold(name)
    participant.always(name, held)
    return held


def opened(server: Server, *messages: Iterable[pb.StartSagaRequest], closed: bool = True) -> Any:
    """A stream with these messages, each of some sagas; unless it is closed, more may follow."""

    async def requests() -> AsyncIterator[pb.StartSagasRequest]:
        for sagas in messages:
            yield pb.StartSagasRequest(sagas=sagas)
        if not closed:
            await asyncio.Event().wait()

    return server.sagas.StartSagas(requests())


def batched(sagas: list[pb.StartSagaRequest], size: int) -> list[list[pb.StartSagaRequest]]:
    return [sagas[first : first + size] for first in range(0, len(sagas), size)]


async def results(call: Any, count: int) -> dict[str, pb.StartSagasResult]:
    """The next so many answers."""
    found: dict[str, pb.StartSagasResult] = {}
    while len(found) < count:
        found |= {result.saga_id: result for result in (await call.read()).results}
    return found


async def started(server: Server, *sagas: pb.StartSagaRequest) -> dict[str, pb.StartSagasResult]:
    """The answers of a stream that brings these and is closed, each to another saga."""
    answers = [result for message in await rest(opened(server, sagas)) for result in message.results]
    assert len(answers) == len(sagas)
    return {result.saga_id: result for result in answers}


def read_error(result: pb.StartSagasResult) -> tuple[str, str, dict[str, str], float | None]:
    """Its code, reason, violations and pause."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    pause_s = None
    for detail in result.error.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            pause_s = retry.retry_delay.ToTimedelta().total_seconds()
    assert info.domain == "sagad"
    code = next(code for code in grpc.StatusCode if code.value[0] == result.error.code)
    return code.name, info.reason, {one.field: one.description for one in bad.field_violations}, pause_s


async def test_each_saga_is_answered_once_as_start_saga_does(server: Server) -> None:
    held = hold_all(server.participant, "do_reserve")
    fields = {"input": json_payload({"n": 1}), "labels": {"a": "b"}, "metadata": {"c": "d"}}
    found = await started(server, *orders(100, **fields))
    one = await server.sagas.StartSaga(order("s7", **fields))
    assert found.keys() == {f"s{n}" for n in range(100)}
    assert found["s7"].saga == one.saga
    assert {result.namespace for result in found.values()} == {"default"}
    held.release()


async def test_what_is_answered_is_durable(server: Server) -> None:
    held = hold_all(server.participant, "do_reserve")
    for saga_id in await started(server, *orders(20)):
        assert await server.store.get_row(("default", saga_id)) is not None
    held.release()


async def test_with_wait_a_saga_is_answered_at_its_end_and_holds_no_other_up(server: Server) -> None:
    held = hold_all(server.participant, "do_charge")
    call = opened(server, [order("waits", wait=True), order("does-not")])
    assert (await results(call, 1)).keys() == {"does-not"}
    held.release()
    assert (await results(call, 1))["waits"].saga.state == SUCCEEDED
    assert await rest(call) == []


async def test_with_wait_a_saga_that_leaves_memory_is_answered_at_its_end(server: Server) -> None:
    server.participant.script("do_charge", pending())
    call = opened(server, [order("sleeps", wait=True)])
    token = (await server.participant.called("do_charge")).completion_token
    await eventually(lambda: ("default", "sleeps") not in server.engine.sagas)
    done = pb.CompleteStepRequest(saga_id="sleeps", step_id="charge", completion_token=token, outcome=success({"a": 1}))
    await server.sagas.CompleteStep(done)
    assert (await results(call, 1))["sleeps"].saga.state == SUCCEEDED
    assert await rest(call) == []


async def test_a_bad_saga_is_answered_with_its_error_and_the_others_are_started(server: Server) -> None:
    await server.start(saga_id="taken", input={"n": 1})
    found = await started(
        server,
        order("fine"),
        order("bad", version="one", labels={"KEY": "v"}),
        order("unknown", definition_id="nothing"),
        order("taken", input=json_payload({"n": 2})),
        order("fine-too"),
    )
    assert found["fine"].saga.state
    assert found["fine-too"].saga.state
    code, reason, violations, _ = read_error(found["bad"])
    assert (code, reason, violations.keys()) == ("INVALID_ARGUMENT", "INVALID_REQUEST", {"version", "labels['KEY']"})
    assert read_error(found["unknown"])[:2] == ("NOT_FOUND", "DEFINITION_NOT_FOUND")
    assert read_error(found["taken"])[:2] == ("ALREADY_EXISTS", "SAGA_EXISTS")


async def test_a_saga_without_an_id_is_refused_by_its_place(server: Server) -> None:
    call = opened(server, orders(3), [order("s3"), order("", version="one"), order("s5")])
    answers = [result for message in await rest(call) for result in message.results]
    (nameless,) = (result for result in answers if not result.saga_id)
    code, _, violations, _ = read_error(nameless)
    assert code == "INVALID_ARGUMENT"
    assert "sagas[1] of message 2" in violations["saga_id"]
    assert "version" in violations
    assert len(answers) == 6


async def test_a_repeat_returns_the_saga_as_it_is_now(server: Server) -> None:
    await server.start(saga_id="s0", wait=True)
    found = await started(server, *orders(3, wait=True))
    assert {result.saga.state for result in found.values()} == {SUCCEEDED}
    assert len(server.participant.calls) == 6


async def test_the_same_id_twice_in_one_stream_is_one_saga_and_two_answers(server: Server) -> None:
    held = hold_all(server.participant, "do_reserve")
    other = order("s0", input=json_payload({"n": 2}))
    call = opened(server, [order("s0"), order("s0"), other])
    answers = [result for message in await rest(call) for result in message.results]
    assert sorted(result.WhichOneof("result") for result in answers) == ["error", "saga", "saga"]
    held.release()


async def test_each_saga_is_said_to_be_created_once(server: Server) -> None:
    held = hold_all(server.participant, "do_charge")
    unary = await server.start(saga_id="s0")
    for wait in (False, True):
        twins = [order("s1", wait=wait), order("s2", wait=wait), order("s1", wait=wait)]
        call = opened(server, [*twins, order("s0", wait=wait), order("s3", version="x")])
        if wait:
            held.release()
        told = sorted((result.saga_id, result.created) for message in await rest(call) for result in message.results)
        made = not wait  # the second time all are there, and in memory
        assert told == [("s0", False), ("s1", False), ("s1", made), ("s2", made), ("s3", False)]
    server.participant.always("do_charge", success())
    await eventually(lambda: not server.engine.sagas)
    found = await started(server, *orders(5, wait=True))
    assert {saga_id for saga_id, result in found.items() if result.created} == {"s3", "s4"}, "the others are at rest"
    assert found["s0"].saga.uid == unary.uid
    await server.admin.PurgeSagas(PurgeSagasRequest())
    assert not any(result.created for result in (await started(server, *orders(5))).values()), "they are purged"


async def test_a_refused_saga_shows_its_end(server: Server) -> None:
    server.participant.script("do_charge", failure("NO_MONEY"))
    (result,) = (await started(server, order("s0", wait=True))).values()
    assert (result.saga.state, result.saga.failure.reason) == (saga_pb2.SAGA_STATE_COMPENSATED, "NO_MONEY")


async def test_a_saga_that_sagad_fails_on_does_not_stop_the_others(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = start_sagas.saga_message

    def fails(snapshot: Any) -> saga_pb2.Saga:
        if snapshot.saga.saga_id == "s1":
            raise ZeroDivisionError
        return shown(snapshot)

    monkeypatch.setattr(start_sagas, "saga_message", fails)
    found = await started(server, *orders(3))
    assert {key: result.WhichOneof("result") for key, result in found.items()} == {
        "s0": "saga",
        "s1": "error",
        "s2": "saga",
    }
    assert read_error(found["s1"])[:2] == ("INTERNAL", "INTERNAL")


@in_memory
async def test_what_is_no_message_ends_the_stream(server: Server) -> None:
    raw = server.channel.stream_stream("/sagad.v1.SagaService/StartSagas")
    call = raw(iter([pb.StartSagasRequest(sagas=[order("s0")]).SerializeToString(), b"\xff"]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rest(call)
    assert read_refusal(caught.value).reason == "MALFORMED_REQUEST"
    assert (await server.settled("s0")).state == SUCCEEDED


@in_memory
async def test_without_a_database_that_takes_writes_every_saga_is_told_to_come_again(server: Server) -> None:
    server.engine.writer.healthy = False
    found = await started(server, *orders(3))
    assert {read_error(result)[:2] for result in found.values()} == {("UNAVAILABLE", "STORE_UNAVAILABLE")}
    assert all(read_error(result)[3] for result in found.values())


@in_memory
async def test_a_stream_is_not_read_while_too_many_of_its_sagas_are_open(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "MAX_OPEN", 10)
    held = hold_all(server.participant, "do_reserve")
    call = opened(server, orders(25, wait=True))
    await eventually(lambda: len(server.engine.sagas) >= 10)
    await server.get("s9")  # whatever was read has had its turn
    assert len(server.engine.sagas) == 10
    held.release()
    found = await results(call, 25)
    assert {result.saga.state for result in found.values()} == {SUCCEEDED}


@in_memory
async def test_a_stream_is_not_read_while_its_open_sagas_have_too_many_bytes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "MAX_OPEN_BYTES", 5000)
    held = hold_all(server.participant, "do_reserve")
    call = opened(server, orders(9, wait=True, input=json_payload("x" * 2000)))
    await eventually(lambda: len(server.engine.sagas) >= 3)
    await server.get("s2")
    assert len(server.engine.sagas) == 3
    held.release()
    assert len(await results(call, 9)) == 9


@in_memory
async def test_a_slow_reader_slows_the_reading_of_its_starts_costs_bounded_memory_and_is_told_all(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "MAX_OPEN", 20)
    monkeypatch.setattr(start_sagas, "_MAX_RESULTS", 7)
    read, told, waiting = 0, 0, []
    answered: list[str] = []
    room = asyncio.Semaphore(0)

    async def requests() -> AsyncIterator[pb.StartSagasRequest]:
        nonlocal read
        for message in batched(orders(200), 8):
            waiting.append(read - told)
            read += len(message)
            yield pb.StartSagasRequest(sagas=message)

    async def send(response: pb.StartSagasResponse) -> None:
        nonlocal told
        assert len(response.results) <= 7
        answered.extend(result.saga_id for result in response.results)
        await room.acquire()
        told += len(response.results)

    service = server.app._sagas
    starting = StartSagas(service._commands, service._limits, service._start_limits, service._forwarder, send)
    running = asyncio.create_task(starting.run(requests()))
    await eventually(lambda: len(starting._open) == 20 and all(one.result is not None for one in starting._open))
    assert (read, told, len(server.engine.sagas)) == (24, 0, 20), (
        "a message that was read is started as far as there is room"
    )
    while not running.done():
        room.release()
        await asyncio.sleep(0)
    await running
    assert sorted(answered) == sorted(f"s{n}" for n in range(200))
    assert max(waiting) <= 20, "the next message is read when all of the last one are started"
    assert (starting._open, starting._open_bytes) == (set(), 0)


@in_memory
async def test_a_client_that_does_not_read_is_not_read_either_and_is_told_all_when_it_does(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "MAX_OPEN", 64)
    labels = {f"label-{n}": "x" * 255 for n in range(30)}
    held = hold_all(server.participant, "do_reserve")
    taken = 0

    async def requests() -> AsyncIterator[pb.StartSagasRequest]:
        nonlocal taken
        for message in batched(orders(3_000, labels=labels), 16):
            taken += len(message)
            yield pb.StartSagasRequest(sagas=message)

    call = server.sagas.StartSagas(requests())
    await eventually(lambda: server.app._sagas._starting)
    (starting,) = server.app._sagas._starting
    seen = -1
    while seen < taken or any(one.result is None for one in starting._open):  # until nothing moves, for want of room
        seen = taken
        await asyncio.sleep(0.3)
    assert taken < 3_000, "all was read, and none of the answers"
    assert len(await results(call, 3_000)) == 3_000
    held.release()


@in_memory
async def test_a_broken_stream_loses_nothing_and_leaves_nobody_waiting(server: Server) -> None:
    held = hold_all(server.participant, "do_charge")
    call = opened(server, [*orders(20), order("waits", wait=True)], closed=False)
    acknowledged = await results(call, 20)
    active = server.engine.sagas["default", "waits"]
    assert len(active.at_rest) == 1
    call.cancel()
    await eventually(lambda: not active.at_rest)
    held.release()
    for saga_id in acknowledged:
        assert (await server.settled(saga_id)).state == SUCCEEDED
    assert (await started(server, *orders(20))).keys() == acknowledged.keys()


@in_memory
async def test_a_node_that_drains_answers_what_it_has_started_and_ends_the_stream(
    store: Any, participant: ScriptedParticipant, server: Server
) -> None:
    held = hold_all(participant, "do_charge")
    idle = opened(server, closed=False)
    call = opened(server, [order("s0"), order("waits", wait=True)], closed=False)
    await results(call, 1)
    await eventually(lambda: len(server.app._sagas._starting) == 2)
    stopping = asyncio.create_task(server.app.stop())
    (result,) = (await results(call, 1)).values()
    assert read_error(result)[:2] == ("UNAVAILABLE", "DRAINING")
    for stream in (call, idle):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rest(stream)
        refusal = read_refusal(caught.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert refusal.retry_after_s
    await stopping
    held.release()


@in_memory
async def test_a_stream_counts_as_one_request_by_how_it_ended(server: Server) -> None:
    def counted(code: str) -> float:
        labels = {"method": "sagad.v1.SagaService/StartSagas", "code": code}
        return server.metrics.registry.get_sample_value("sagad_requests_total", labels) or 0.0

    await started(server, *orders(3))
    assert counted("OK") == 1
    held = hold_all(server.participant, "do_reserve")
    call = opened(server, [order("waited-for", wait=True)])
    await server.participant.called("do_reserve")
    call.cancel()
    await eventually(lambda: counted("CANCELLED") == 1)
    held.release()


async def test_a_stream_waits_too_where_another_node_is_overloaded(participant: ScriptedParticipant) -> None:
    database = MemoryDatabase()
    limits = {"max_batch": 2, "overload_after": "20ms"}
    first = running_server(MemoryStore(database), participant, node={"name": "one"}, limits=limits)
    second = running_server(MemoryStore(database), participant, node={"name": "two"})
    async with first as one, second as two:
        await one.create(chain("reserve"))
        held = hold_all(participant, "do_reserve")
        await started(one, *orders(3))
        coming = one.engine.admission.enter()
        await eventually(lambda: one.engine.admission.overloaded)
        call = opened(two, orders(3, wait=True))
        refused = {"reason": "OVERLOADED"}
        await eventually(
            lambda: one.metrics.registry.get_sample_value("sagad_starts_refused_total", refused) is not None
        )
        coming.leave()
        held.release()
        assert {result.saga.state for result in (await results(call, 3)).values()} == {SUCCEEDED}


async def test_a_stream_that_waits_for_an_overloaded_node_ends_with_its_own(participant: ScriptedParticipant) -> None:
    database = MemoryDatabase()
    first = running_server(MemoryStore(database), participant, node={"name": "one"})
    second = running_server(MemoryStore(database), participant, node={"name": "two"})
    async with first as one, second as two:
        await one.create(chain("reserve"))
        held = hold_all(participant, "do_reserve")
        await started(one, *orders(3))
        one.engine.admission.overload = lambda: ResourceExhausted("late", reason="OVERLOADED", retry_after_ms=1)  # type: ignore[method-assign]
        call = opened(two, orders(3, wait=True))
        counted = {"method": "sagad.v1.SagaService/StartSaga", "code": "RESOURCE_EXHAUSTED"}
        await eventually(lambda: one.metrics.registry.get_sample_value("sagad_requests_total", counted) is not None)
        two.app._sagas.stop_starting()
        ended = list((await results(call, 1)).values())
        assert {read_error(result)[:2] for result in ended} == {("UNAVAILABLE", "DRAINING")}
        held.release()


async def test_a_saga_of_another_node_is_answered_by_any(participant: ScriptedParticipant) -> None:
    database = MemoryDatabase()
    first = running_server(MemoryStore(database), participant, node={"name": "one"})
    second = running_server(MemoryStore(database), participant, node={"name": "two"})
    async with first as one, second as two:
        await one.create(chain("aa", "bb"))
        held = hold_all(participant, "do_bb")
        await started(one, order("s0"), order("s1"))
        call = opened(two, [order("s0", wait=True), order("s1"), order("s1", input=json_payload("other"))])
        at_once: list[pb.StartSagasResult] = []
        while len(at_once) < 2:
            at_once += (await call.read()).results
        assert sorted(result.WhichOneof("result") for result in at_once) == ["error", "saga"]
        held.release()
        (last,) = (await results(call, 1)).values()
        assert last.saga.state == SUCCEEDED
        assert not any(result.created for result in (*at_once, last))
        assert not two.engine.sagas


async def test_a_saga_whose_node_cannot_be_reached_is_told_to_come_again(
    participant: ScriptedParticipant, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = MemoryDatabase()
    first = running_server(MemoryStore(database), participant, node={"name": "one"})
    second = running_server(MemoryStore(database), participant, node={"name": "two"})
    async with first as one, second as two:
        await one.create(chain("aa"))
        held = hold_all(participant, "do_aa")
        await started(one, order("s0"))

        async def away(*_: object) -> bytes:
            raise Unavailable("no way there", retry_after_ms=250)

        monkeypatch.setattr(two.app._peers, "forward", away)
        (result,) = (await started(two, order("s0", wait=True))).values()
        assert read_error(result)[::3] == ("UNAVAILABLE", 0.25)
        held.release()
