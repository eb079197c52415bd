"""StartSaga: durable, idempotent, and it says everything that is wrong at once."""

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from support.scripted_participant import failure, json_payload
from support.server import Server, chain, refused

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb


@pytest.fixture(autouse=True)
async def _order(server: Server) -> None:
    await server.create(chain("reserve", "charge"))


async def test_a_started_saga_is_returned_as_it_is_without_payloads(server: Server) -> None:
    held = server.participant.hold("do_reserve")
    saga = await server.start(input={"sku": "a"}, labels={"tier": "gold"}, metadata={"trace": "1"}, saga_id="s1")
    held.release()
    assert (saga.namespace, saga.saga_id, saga.definition_id, saga.version) == ("default", "s1", "order", "1.0.0")
    assert (saga.state, saga.revision, saga.epoch) == (saga_pb2.SAGA_STATE_RUNNING, 1, 1)
    assert [(step.step_id, step.state, step.attempt) for step in saga.steps] == [
        ("reserve", saga_pb2.STEP_STATE_RUNNING, 1),
        ("charge", saga_pb2.STEP_STATE_NOT_STARTED, 0),
    ]
    assert dict(saga.labels) == {"tier": "gold"}
    assert not saga.HasField("input")
    assert not saga.metadata
    assert saga.create_time == saga.update_time
    assert not saga.HasField("end_time")


async def test_with_wait_it_answers_at_the_end(server: Server) -> None:
    saga = await server.start(wait=True)
    assert saga.state == saga_pb2.SAGA_STATE_SUCCEEDED
    assert saga.HasField("end_time")
    assert server.participant.names() == ["do_reserve", "do_charge"]


async def test_without_an_id_the_server_makes_one(server: Server) -> None:
    first, second = await server.start(saga_id=""), await server.start(saga_id="")
    assert first.saga_id != second.saga_id
    assert first.saga_id[14] == "7"  # UUIDv7


async def test_a_repeat_returns_the_saga_as_it_is_now(server: Server) -> None:
    content = {"saga_id": "s1", "input": {"n": 1}, "labels": {"a": "b", "c": "d"}, "timeout": Duration(seconds=60)}
    await server.start(**content, wait=True)
    repeated = await server.start(**{**content, "labels": {"c": "d", "a": "b"}}, wait=False)
    assert repeated.state == saga_pb2.SAGA_STATE_SUCCEEDED
    assert server.participant.names() == ["do_reserve", "do_charge"]


@pytest.mark.parametrize(
    "other",
    [
        {"input": json_payload({"n": 2})},
        {"labels": {"a": "c"}},
        {"metadata": {"a": "b"}},
        {"version": "1.0.0"},
        {"timeout": Duration(seconds=9)},
        {"definition_id": "another"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_other_content_under_the_same_id_is_refused(server: Server, other: dict[str, object]) -> None:
    content = {"definition_id": "order", "saga_id": "s1", "input": json_payload({"n": 1})}
    await server.sagas.StartSaga(pb.StartSagaRequest(**content))
    refusal = await refused(server.sagas.StartSaga(pb.StartSagaRequest(**{**content, **other})))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SAGA_EXISTS")


async def test_the_same_id_in_another_namespace_is_another_saga(server: Server) -> None:
    await server.create(chain("reserve"), namespace="elsewhere")
    one, other = await server.start(saga_id="s1"), await server.start(saga_id="s1", namespace="elsewhere")
    assert one.uid != other.uid
    assert other.namespace == "elsewhere"


async def test_an_unknown_definition_is_not_found(server: Server) -> None:
    refusal = await refused(server.start("nothing"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEFINITION_NOT_FOUND")


async def test_every_fault_of_a_request_is_named_at_once(server: Server) -> None:
    refusal = await refused(
        server.start(
            "x",
            saga_id="no spaces",
            namespace="NO",
            version="one",
            labels={"KEY": "v"},
            metadata={"grpc-x": "v"},
            timeout=Duration(nanos=1),
            input="\0",
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert set(refusal.violations) == {
        "namespace",
        "saga_id",
        "definition_id",
        "version",
        "labels['KEY']",
        "metadata['grpc-x']",
        "timeout",
        "input.json",
    }
    assert "8 faults" in refusal.message


async def test_a_clients_deadline_ends_the_wait_and_not_the_saga(server: Server) -> None:
    held = server.participant.hold("do_reserve")
    request = pb.StartSagaRequest(definition_id="order", saga_id="s1", wait=True)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await server.sagas.StartSaga(request, timeout=0.3)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    held.release()
    assert (await server.sagas.StartSaga(request)).saga.state == saga_pb2.SAGA_STATE_SUCCEEDED


async def test_a_client_that_leaves_does_not_end_the_saga(server: Server) -> None:
    held = server.participant.hold("do_reserve")
    request = pb.StartSagaRequest(definition_id="order", saga_id="s1", wait=True)
    call = server.sagas.StartSaga(request)
    await server.participant.called("do_reserve")
    call.cancel()
    held.release()
    assert (await server.settled("s1")).state == saga_pb2.SAGA_STATE_SUCCEEDED


async def test_the_deadline_of_a_saga_is_shown(server: Server) -> None:
    held = server.participant.hold("do_reserve")
    saga = await server.start(timeout=Duration(seconds=90))
    held.release()
    assert saga.timeout.ToSeconds() == 90
    assert saga.deadline_time.ToMicroseconds() - saga.create_time.ToMicroseconds() == 90_000_000


async def test_many_starts_at_once_are_all_answered(server: Server) -> None:
    sagas = await asyncio.gather(*(server.start(wait=True) for _ in range(100)))
    assert {saga.state for saga in sagas} == {saga_pb2.SAGA_STATE_SUCCEEDED}
    assert len({saga.uid for saga in sagas}) == 100


async def test_a_refused_saga_shows_its_failure_and_what_was_undone(server: Server) -> None:
    server.participant.script("do_charge", failure("NO_MONEY"))
    saga = await server.start(wait=True)
    assert saga.state == saga_pb2.SAGA_STATE_COMPENSATED
    assert (saga.failure.reason, saga.failure.step_id) == ("NO_MONEY", "charge")
    assert [step.state for step in saga.steps] == [saga_pb2.STEP_STATE_COMPENSATED, saga_pb2.STEP_STATE_REFUSED]
