"""AdminService: the mirror's status, and the calls that steer it. What is relayed: tests/integration/mirror."""

import asyncio
import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import grpc
import pytest
from support.postgres import database
from support.sagactl import Sagactl
from support.scripted_participant import ScriptedParticipant
from support.server import Server, chain, refused, running_server

from sagad.v1 import admin_service_pb2 as pb
from sagad.v1.saga_pb2 import SAGA_STATE_SUCCEEDED
from sagad_server.storage.mirror import Place, Start
from sagad_server.storage.postgres.mirror import MirrorTables
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.postgres.store import PostgresStore

TOPIC = "saga-events"
DIVERGED = "the journal was another one"


@pytest.fixture
def store(migrated_database: str, postgres_server_dsn: str) -> Iterator[PostgresStore]:
    """There is no mirror of what is in memory."""
    with database(postgres_server_dsn, migrated_database) as dsn:
        yield PostgresStore(PostgresSettings(dsn=dsn))


@pytest.fixture
async def relay(server: Server, store: PostgresStore) -> UUID:
    """A process that relays all lanes, of which 3 stands still."""
    relay_id, tables = uuid4(), store.mirror()
    await tables.enter(relay_id, TOPIC, "one", replaces=True)
    await tables.claim(relay_id, TOPIC, 8)
    await tables.stop((await tables.lanes(TOPIC))[3], DIVERGED)
    return relay_id


async def mirror_health(server: Server) -> pb.ComponentHealth | None:
    health = await server.admin.GetHealthDetails(pb.GetHealthDetailsRequest())
    assert health.healthy, "sagad does without the mirror"
    return next((one for one in health.components if one.name == "mirror"), None)


async def test_the_status_shows_who_relays_each_lane_and_which_stands_still(server: Server, relay: UUID) -> None:
    status = await server.admin.GetMirrorStatus(pb.GetMirrorStatusRequest())
    assert [(one.topic, one.lane, one.relay_name, one.lag_events) for one in status.lanes] == [
        (TOPIC, lane, "one", 0) for lane in range(8)
    ]
    assert [one.lane for one in status.lanes if one.fault == DIVERGED] == [3]
    assert not (await server.admin.GetMirrorStatus(pb.GetMirrorStatusRequest(topic="other"))).lanes


async def test_a_resumed_lane_goes_on_in_another_start_and_the_audit_log_says_who_did_it(
    server: Server, relay: UUID, store: PostgresStore
) -> None:
    tables: MirrorTables = store.mirror()
    before = await tables.lanes(TOPIC)
    request = pb.ResumeMirrorRequest(topic=TOPIC, start=pb.MIRROR_START_BEGINNING, reason="the topic was restored")
    assert list((await server.admin.ResumeMirror(request)).lanes) == [3]
    after = await tables.lanes(TOPIC)
    assert [old.start_id != new.start_id for old, new in zip(before, after, strict=True)].count(True) == 1
    assert (after[3].start, after[3].fault) == (Start.BEGINNING, "")
    (event,) = (await server.admin.ListAuditEvents(pb.ListAuditEventsRequest())).events
    assert (event.kind, event.subject, event.reason) == (pb.AUDIT_KIND_MIRROR_RESUMED, TOPIC, "the topic was restored")
    assert json.loads(event.details) == {"lanes": [3], "start": "MIRROR_START_BEGINNING"}
    assert not (await server.admin.ResumeMirror(request)).lanes, "no lane stands still any more"


async def test_a_mirror_is_removed_only_when_nobody_relays_into_its_topic(
    server: Server, relay: UUID, store: PostgresStore
) -> None:
    request = pb.RemoveMirrorRequest(topic=TOPIC, reason="rebuilt")
    refusal = await refused(server.admin.RemoveMirror(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MIRROR_RUNNING")
    await store.mirror().leave(relay)
    await server.admin.RemoveMirror(request)
    assert not (await server.admin.GetMirrorStatus(pb.GetMirrorStatusRequest())).lanes
    refusal = await refused(server.admin.RemoveMirror(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "MIRROR_NOT_FOUND")


async def test_every_fault_of_a_request_is_named_at_once(server: Server) -> None:
    refusal = await refused(server.admin.ResumeMirror(pb.ResumeMirrorRequest(topic="a b", lanes=[8])))
    assert set(refusal.violations) == {"topic", "lanes[0]", "start", "reason"}


async def test_health_says_what_is_wrong_with_the_mirror_and_that_sagas_do_without_it(
    server: Server, store: PostgresStore
) -> None:
    assert await mirror_health(server) is None
    relay_id, tables = uuid4(), store.mirror()
    await tables.enter(relay_id, TOPIC, "one", replaces=True)
    alone = await mirror_health(server)
    assert alone is not None
    assert (alone.healthy, alone.required) == (False, False)
    assert "nobody relays saga-events/0" in alone.message
    await tables.claim(relay_id, TOPIC, 8)
    well = await mirror_health(server)
    assert well is not None
    assert (well.healthy, well.message) == (True, "")
    await tables.stop((await tables.lanes(TOPIC))[3], DIVERGED)
    still = await mirror_health(server)
    assert still is not None
    assert still.message.startswith("MIRROR_DIVERGED")
    assert DIVERGED in still.message


async def test_what_is_not_relayed_yet_is_not_purged(server: Server, relay: UUID, store: PostgresStore) -> None:
    await server.create(chain("reserve"))
    saga = await server.start(wait=True)
    request = pb.PurgeSagasRequest()
    assert (await server.admin.PurgeSagas(request)).purged == 0
    lanes = await store.mirror().lanes(TOPIC)
    end = {lane.lane: (lane.start_id, Place(2**60, 0)) for lane in lanes}
    await store.mirror().relayed(TOPIC, end)
    assert (await server.admin.PurgeSagas(request)).purged == 1
    assert (await server.get(saga.saga_id)).purged


async def test_sagactl_shows_the_lanes_and_lets_one_go_on(server: Server, relay: UUID) -> None:
    sagactl = Sagactl(server.address)
    shown = await sagactl("mirror", "status")
    assert (shown.code, [line[:3] for line in shown.lines[-8:]]) == (3, [[TOPIC, str(n), "one"] for n in range(8)])
    resumed = await sagactl("mirror", "resume", TOPIC, "cursor", "--reason", "test", "-o", "json")
    assert resumed.json == {"lanes": [3]}
    assert (await sagactl("mirror", "status")).code == 0
    refused_removal = await sagactl("mirror", "remove", TOPIC, "--reason", "test")
    assert "MIRROR_RUNNING" in refused_removal.err


async def test_sagas_go_on_and_the_node_stops_in_time_where_kafka_is_away(
    store: PostgresStore, participant: ScriptedParticipant
) -> None:
    away = {"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "mirror": {"enabled": True}}
    async with asyncio.timeout(10), running_server(store, participant, **away) as server:
        await server.create(chain("reserve"))
        fault = await mirror_health(server)
        while fault is None or "KafkaConnectionError" not in fault.message:
            await asyncio.sleep(0.05)
            fault = await mirror_health(server)
        saga = await server.start(wait=True)
        assert saga.state == SAGA_STATE_SUCCEEDED
