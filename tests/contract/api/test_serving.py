"""The server itself: reflection, health, TLS, its port."""

from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.proxy import Proxy
from support.scripted_participant import ScriptedParticipant
from support.server import PARTICIPANT, Server, chain, refused, running_server

from sagad.v1 import admin_service_pb2, saga_service_pb2, saga_service_pb2_grpc
from sagad_server.api.server import SERVICES, ListenError, listen
from sagad_server.config_sections import Grpc
from sagad_server.domain.errors import Unavailable
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.nodes import NodeState
from sagad_server.storage.store import Store

pytestmark = pytest.mark.parametrize("store", ["memory"], indirect=True)  # it is the same over every store

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
HEALTH = "grpc.health.v1.Health"
TLS = Path(__file__).parent.parent / "client" / "tls"  # of localhost
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


async def reflected(server: Server, **fields: str) -> reflection_pb2.ServerReflectionResponse:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    stream = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**fields)]))
    return await stream.read()


async def test_reflection_lists_every_service(server: Server) -> None:
    answer = await reflected(server, list_services="")
    assert {one.name for one in answer.list_services_response.service} == {*SERVICES, HEALTH, REFLECTION}


@pytest.mark.parametrize("service", [*SERVICES, HEALTH, REFLECTION])
async def test_reflection_describes_every_service(server: Server, service: str) -> None:
    answer = await reflected(server, file_containing_symbol=service)
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert service in {f"{file.package}.{one.name}" for file in files for one in file.service}


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_is_told_for_the_whole_and_for_each_service(server: Server, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING


async def test_without_a_database_that_takes_writes_the_server_does_not_serve(server: Server) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    for healthy, status in ((False, NOT_SERVING), (True, SERVING)):
        server.engine.writer.healthy = healthy
        assert (await watch.read()).status == status
    watch.cancel()


async def test_past_its_lease_the_server_does_not_serve(server: Server) -> None:
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    for holds, status in ((False, NOT_SERVING), (True, SERVING)):
        server.engine.holds_lease = lambda holds=holds: holds  # type: ignore[misc]
        assert (await watch.read()).status == status
    watch.cancel()


async def test_the_health_of_an_unknown_service_is_not_known(server: Server) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)
    refusal = await refused(stub.Check(health_pb2.HealthCheckRequest(service="nothing")))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_a_port_that_is_taken_is_not_shared(server: Server) -> None:
    config = Grpc(address=server.address)
    second = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    with pytest.raises(ListenError, match=f"cannot listen on {server.address}"):
        listen(second, config, config.address)
    await second.stop(None)


async def test_with_a_certificate_it_serves_over_tls_only(store: Store, participant: ScriptedParticipant) -> None:
    files = {"tls_cert_file": str(TLS / "cert.pem"), "tls_key_file": str(TLS / "key.pem")}
    credentials = grpc.ssl_channel_credentials((TLS / "cert.pem").read_bytes())
    async with running_server(store, participant, grpc=files, credentials=credentials) as server:
        info = await server.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest())
        assert info.name == "sagad"
        async with grpc.aio.insecure_channel(server.address) as plain:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await plain.unary_unary("/sagad.v1.AdminService/GetServerInfo")(b"")
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("compression", ["none", "deflate", "gzip"])
async def test_answers_and_calls_are_compressed_where_the_configuration_says_so(
    store: Store, participant: ScriptedParticipant, compression: str
) -> None:
    to_participant = Proxy(int(participant.address.rpartition(":")[2]))
    async with to_participant.running():
        called = {"target": to_participant.address, "compression": compression}
        sections = {"grpc": {"compression": compression}, "participants": {PARTICIPANT: called}}
        async with running_server(store, participant, **sections) as server:
            await server.create(chain("reserve"))
            to_server = Proxy(int(server.address.rpartition(":")[2]))
            async with to_server.running(), grpc.aio.insecure_channel(to_server.address) as channel:
                started = await server.start(input={"note": "x" * 100_000})
                await server.settled(started.saga_id)
                request = saga_service_pb2.GetSagaRequest(saga_id=started.saga_id)
                answer = await saga_service_pb2_grpc.SagaServiceStub(channel).GetSaga(request)
    assert len(answer.saga.input.json.struct_value.fields["note"].string_value) == 100_000
    small = compression != "none"
    assert (to_server.answer_bytes < 50_000) is small
    assert (to_participant.request_bytes < 50_000) is small


async def test_a_start_that_fails_after_it_has_joined_leaves_no_live_node_behind(
    store: MemoryStore, participant: ScriptedParticipant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(address: str) -> None:
        raise Unavailable("PostgreSQL went away")

    monkeypatch.setattr(store, "announce", away)
    with pytest.raises(Unavailable):
        async with running_server(store, participant):
            pass
    assert {node.state for node in store.database.nodes.values()} == {NodeState.DEAD}
