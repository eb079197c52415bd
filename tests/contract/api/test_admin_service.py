"""AdminService: what the server is, what it has done, whether it is well, and the purge."""

import grpc
import pytest
from support.scripted_participant import ScriptedParticipant
from support.server import PARTICIPANT, UNREACHABLE, Server, chain, refused

from sagad.v1 import admin_service_pb2 as pb
from sagad.v1 import saga_pb2
from sagad_server.domain.errors import Unavailable


@pytest.fixture(autouse=True)
async def _order(server: Server) -> None:
    await server.create(chain("reserve", "charge"))


async def test_the_server_says_what_it_is(server: Server) -> None:
    info = await server.admin.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.name, dict(info.labels)) == ("sagad", {"stage": "test"})
    assert info.node_name == "test-node"
    assert info.incarnation == 1
    assert info.version
    assert info.HasField("start_time")
    assert info.replication == pb.REPLICATION_NONE


async def test_the_server_counts_what_it_has_done(server: Server) -> None:
    for _ in range(3):
        await server.start(wait=True)
    held = server.participant.hold("do_reserve")
    await server.start()
    await server.participant.called("do_reserve", 4)
    stats = await server.admin.GetServiceStats(pb.GetServiceStatsRequest())
    held.release()
    assert stats.started_total == 4
    assert [(one.state, one.count) for one in stats.ended_total] == [(saga_pb2.SAGA_STATE_SUCCEEDED, 3)]
    assert (stats.sagas_in_memory, stats.calls_in_flight, stats.write_queue, stats.watches) == (1, 1, 0, 0)
    assert stats.transitions_total == 10
    assert 4 <= stats.commits_total <= 10
    assert stats.uptime.ToNanoseconds() > 0


async def test_health_names_every_component_and_what_is_required(server: Server) -> None:
    health = await server.admin.GetHealthDetails(pb.GetHealthDetailsRequest())
    assert health.healthy
    assert [(one.name, one.healthy, one.required) for one in health.components] == [
        ("postgres", True, True),
        ("writer", True, True),
        ("admission", True, False),
        (f"participant/{PARTICIPANT}", True, False),
        (f"participant/{UNREACHABLE}", False, False),
    ]
    assert "UNAVAILABLE" in health.components[4].message


async def test_without_its_database_the_server_is_not_healthy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ping() -> None:
        raise Unavailable("PostgreSQL does not answer", retry_after_ms=1000)

    monkeypatch.setattr(server.store, "ping", ping)
    server.engine.writer.healthy = False
    health = await server.admin.GetHealthDetails(pb.GetHealthDetailsRequest())
    assert not health.healthy
    assert [one.healthy for one in health.components[:2]] == [False, False]
    assert health.components[0].message == "PostgreSQL does not answer"


async def test_participants_are_listed_with_what_they_implement(
    server: Server, participant: ScriptedParticipant
) -> None:
    listed = (await server.admin.ListParticipants(pb.ListParticipantsRequest())).participants
    reachable, other = listed
    assert (reachable.name, reachable.target, reachable.tls) == (PARTICIPANT, participant.address, False)
    assert reachable.step_timeout.ToSeconds() == 30
    assert reachable.reachable
    assert list(reachable.actions) == ["do_charge", "do_reserve"]
    assert list(reachable.compensations) == ["undo_charge", "undo_reserve"]
    assert (other.name, other.reachable) == (UNREACHABLE, False)
    assert "UNAVAILABLE" in other.message


async def test_a_purge_takes_ended_sagas_only_and_says_whether_there_are_more(server: Server) -> None:
    for number in range(5):
        await server.start(saga_id=f"s{number}", labels={"odd": str(number % 2)}, wait=True)
    held = server.participant.hold("do_reserve")
    await server.start(saga_id="running")

    async def purge(**fields: object) -> tuple[int, bool]:
        response = await server.admin.PurgeSagas(pb.PurgeSagasRequest(**fields))  # type: ignore[arg-type]
        return response.purged, response.more

    assert await purge(namespace="elsewhere") == (0, False)
    assert await purge(dry_run=True) == (5, False)
    assert await purge(dry_run=True, limit=5) == (5, False)
    assert await purge(dry_run=True, limit=4) == (4, True)
    assert await purge(limit=1) == (1, True)
    assert await purge(filter=saga_pb2.SagaFilter(labels={"odd": "1"}), limit=2) == (2, False)
    assert await purge(limit=2) == (2, False)
    assert await purge() == (0, False)
    held.release()
    assert not (await server.get("running")).purged


@pytest.mark.parametrize("limit", [-1, 10_001])
async def test_a_limit_of_a_purge_is_bounded(server: Server, limit: int) -> None:
    refusal = await refused(server.admin.PurgeSagas(pb.PurgeSagasRequest(limit=limit, namespace="NO")))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"limit", "namespace"}


async def test_without_a_mirror_its_status_is_empty_and_nothing_can_be_steered(server: Server) -> None:
    assert not (await server.admin.GetMirrorStatus(pb.GetMirrorStatusRequest())).lanes
    resume = pb.ResumeMirrorRequest(topic="saga-events", start=pb.MIRROR_START_END, reason="test")
    refusal = await refused(server.admin.ResumeMirror(resume))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "MIRROR_NOT_FOUND")
