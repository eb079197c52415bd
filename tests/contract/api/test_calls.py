"""What holds for every call: nothing of the server's inside leaves it, and every end is counted."""

from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from support.server import Server, chain, eventually, read_refusal, refused

from sagad.v1 import saga_service_pb2 as pb
from sagad_server.domain.errors import Unavailable

pytestmark = pytest.mark.parametrize("store", ["memory"], indirect=True)  # it is the same over every store

GARBAGE = (b"\xff", b"\x0a\xff\xff", b"\x12\x02\xc3\x28", b"\x00", b"\x0a\x05abc")


def ended(server: Server, method: str, code: str) -> float:
    labels = {"method": f"sagad.v1.SagaService/{method}", "code": code}
    return server.metrics.registry.get_sample_value("sagad_requests_total", labels) or 0


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: garbage.hex())
async def test_a_request_that_is_no_message_is_invalid(server: Server, garbage: bytes) -> None:
    for service, methods in (
        ("SagaService", ("StartSaga", "GetSaga", "ListSagas", "CompleteStep")),
        ("DefinitionService", ("CreateDefinition",)),
        ("AdminService", ("PurgeSagas",)),
    ):
        for method in methods:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await server.channel.unary_unary(f"/sagad.v1.{service}/{method}")(garbage)
            refusal = read_refusal(error.value)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
            assert refusal.message.startswith(f"the request is not a valid {method}Request")
    stream = server.channel.unary_stream("/sagad.v1.SagaService/WatchSaga")(garbage)
    assert (await refused(stream)).reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_of_the_server_shows_only_its_number(
    server: Server, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    async def get_row(key: object) -> None:
        raise ZeroDivisionError("inside: password=hunter2")

    monkeypatch.setattr(server.store, "get_row", get_row)
    with capture_logs() as logs:
        call: Any = (
            server.sagas.WatchSaga(pb.WatchSagaRequest(saga_id="s1", after_revision=1))
            if stream
            else server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s1"))
        )
        refusal = await refused(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    incident_id = refusal.metadata["incident_id"]
    assert refusal.message == f"sagad failed on this request: its log has more under incident {incident_id}"
    (entry,) = [entry for entry in logs if entry["event"] == "request failed"]
    assert entry["incident_id"] == incident_id
    assert isinstance(entry["exc_info"], ZeroDivisionError)


async def test_a_database_that_is_away_is_a_plea_to_try_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(key: object) -> None:
        raise Unavailable("PostgreSQL does not answer", retry_after_ms=500)

    monkeypatch.setattr(server.store, "load", load)
    refusal = await refused(server.get("s1"))
    assert (refusal.code, refusal.retry_after_s) == (grpc.StatusCode.UNAVAILABLE, 0.5)


async def test_every_end_of_a_call_is_counted_by_its_code(server: Server) -> None:
    await server.create(chain("reserve"))
    held = server.participant.hold("do_reserve")
    await server.start(saga_id="s1")
    await refused(server.get("nothing"))
    await refused(server.start("nothing"))
    late = pb.StartSagaRequest(definition_id="order", saga_id="s1", wait=True)
    with pytest.raises(grpc.aio.AioRpcError):
        await server.sagas.StartSaga(late, timeout=0.1)
    watch = server.sagas.WatchSaga(pb.WatchSagaRequest(saga_id="s1"))
    await watch.read()
    watch.cancel()
    await eventually(lambda: ended(server, "WatchSaga", "CANCELLED") == 1)
    await eventually(lambda: ended(server, "StartSaga", "DEADLINE_EXCEEDED") == 1)
    held.release()
    assert ended(server, "StartSaga", "OK") == 1
    assert ended(server, "StartSaga", "NOT_FOUND") == 1
    assert ended(server, "GetSaga", "NOT_FOUND") == 1


async def test_a_method_that_does_not_exist_is_unimplemented(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await server.channel.unary_unary("/sagad.v1.SagaService/MakeCoffee")(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_beyond_the_bound_on_messages_is_refused(server: Server) -> None:
    request = pb.StartSagaRequest(definition_id="x" * (5 * 1024 * 1024))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await server.sagas.StartSaga(request)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
