"""A participant as others see it: through a channel."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.barrier_worlds import PostgresWorld, World, step, undo

from sagad.v1 import participant_service_pb2 as pb
from sagad.v1.participant_service_pb2_grpc import ParticipantServiceStub
from sagad_participant import Action, Compensation, Participant, Pending, Refused, RunningServer, start
from sagad_participant.serving import SERVICE


@pytest_asyncio.fixture
async def server(world: World, tested: Participant) -> AsyncIterator[RunningServer]:
    running = await start(tested)
    yield running
    await running.stop(0)


@pytest_asyncio.fixture
async def stub(server: RunningServer) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield ParticipantServiceStub(channel)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def test_describe_lists_what_is_registered(tested: Participant, stub: Any) -> None:
    class Handlers:
        async def act(self, call: Any) -> None: ...

    tested.action("charge_card")(Handlers().act)
    tested.action("authorise_card")(Handlers().act)
    tested.compensation("refund_card")(Handlers().act)
    described = await stub.Describe(pb.DescribeRequest())
    assert list(described.actions) == ["authorise_card", "charge_card"]
    assert list(described.compensations) == ["refund_card"]


async def test_a_call_carries_everything_to_the_handler(tested: Participant, stub: Any) -> None:
    calls: list[Action] = []

    @tested.action("act")
    async def act(call: Action) -> None:
        assert call.remaining_s is not None
        assert 0 < call.remaining_s < 6  # gRPC rounds it up
        calls.append(call)

    request = step(labels={"team": "blue"})
    request.outputs["reserve"].json.struct_value["id"] = "r-1"
    request.outputs["photo"].data = b"\x00"
    request.outputs["nothing"].SetInParent()
    metadata = (("trace", "t-1"), ("sagad-internal", "x"), ("blob-bin", b"x"))
    await stub.Step(request, timeout=5, metadata=metadata)
    (call,) = calls
    assert call.json == {"order_id": "o-1"}
    assert call.outputs == {"reserve": {"id": "r-1"}, "photo": b"\x00", "nothing": None}
    assert call.metadata == {"trace": "t-1"}
    assert call.labels == {"team": "blue"}
    assert (call.namespace, call.saga_id, call.step_id, call.action) == ("default", "saga-1", "the_step", "act")
    assert (call.definition_id, call.version, call.attempt, call.fencing_token) == ("order", "1.0.0", 1, 1)
    assert call.idempotency_key == request.idempotency_key


async def test_every_failure_has_its_status(world: World, tested: Participant, stub: Any) -> None:
    @tested.action("raise")
    async def fail(call: Action) -> None:
        raise RuntimeError("secret")

    @tested.action("not_json")
    async def not_json(call: Action) -> object:
        return object()

    @tested.action("reads_json")
    async def reads_json(call: Action) -> object:
        return call.json

    error = await refused(stub.Step(step("raise")))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "secret" not in str(error.details())
    assert (await refused(stub.Step(step("not_json")))).code() is grpc.StatusCode.INTERNAL
    error = await refused(stub.Step(step("missing")))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == "tested has no action 'missing'; its actions are: not_json, raise, reads_json"
    request = step("reads_json")
    request.input.data = b"bytes"
    error = await refused(stub.Step(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "input is 5 bytes of data, and the participant reads it as JSON"
    newer = step("reads_json", token=2)
    await stub.Step(newer)
    error = await refused(stub.Step(step("reads_json", key=newer.idempotency_key, token=1)))
    assert error.code() is grpc.StatusCode.ABORTED


async def test_outcomes_travel_as_outcomes(tested: Participant, stub: Any) -> None:
    @tested.action("pend")
    async def pend(call: Action) -> type[Pending]:
        return Pending

    @tested.action("refuse")
    async def refuse(call: Action) -> None:
        raise Refused("CARD_DECLINED")

    @tested.compensation("undo")
    async def undone(call: Compensation) -> None: ...

    pending = step("pend")
    assert (await stub.Step(pending)).outcome.HasField("pending")
    assert (await stub.Step(step("refuse"))).outcome.failure.reason == "CARD_DECLINED"
    assert (await stub.Compensate(undo(pending))).outcome.HasField("success")


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
async def test_a_call_that_its_caller_gives_up_is_rolled_back(
    world: World, tested: Participant, stub: Any, end: str
) -> None:
    started, ended, forever = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tested.action("act")
    async def act(call: Action) -> None:
        await world.effect(call.connection, "act")
        started.set()
        try:
            await forever.wait()
        finally:
            ended.set()

    request = step()
    if end == "cancelled":
        call = stub.Step(request)
        await started.wait()
        call.cancel()
    else:
        assert (await refused(stub.Step(request, timeout=0.3))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(ended.wait(), 10)
    forever.set()
    assert (await stub.Step(request)).outcome.HasField("success")  # waits for the rollback, and runs again
    assert await world.effects() == ["act"]


async def test_stop_lets_calls_in_flight_end(tested: Participant, server: RunningServer, stub: Any) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @tested.action("act")
    async def act(call: Action) -> None:
        started.set()
        await go.wait()

    call = stub.Step(step())
    await started.wait()
    stopping = asyncio.create_task(server.stop(10))
    error = await refused_soon(stub)
    assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    go.set()
    assert (await call).outcome.HasField("success")
    await stopping


async def refused_soon(stub: Any) -> grpc.aio.AioRpcError:
    """The first refusal: the server needs a moment to stop listening."""
    async with asyncio.timeout(10):
        while True:
            try:
                await stub.Describe(pb.DescribeRequest())
            except grpc.aio.AioRpcError as error:
                return error


async def test_a_stopped_server_rolls_back_what_did_not_end_in_time(
    postgres_world: PostgresWorld,
) -> None:
    participant = Participant("tested", barrier=postgres_world.barrier)
    started = asyncio.Event()

    @participant.action("act")
    async def act(call: Action) -> None:
        await postgres_world.effect(call.connection, "act")
        started.set()
        await asyncio.Event().wait()

    server = await start(participant)
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = ParticipantServiceStub(channel).Step(step())
        await started.wait()
        await server.stop(0.1)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    assert await postgres_world.effects() == []


async def test_health_is_served(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        for service in ("", SERVICE):
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_taken_port_is_refused(tested: Participant, server: RunningServer) -> None:
    with pytest.raises(OSError, match="cannot listen on"):
        await start(tested, server.address)
