"""AdminService.ListAuditEvents: who has done what to the server and its definitions."""

import json
from typing import Any

import grpc
import pytest
from support.scripted_participant import ScriptedParticipant
from support.server import Server, chain, eventually, refused, running_server

from sagad.v1 import admin_service_pb2 as pb
from sagad.v1 import definition_service_pb2, saga_pb2
from sagad_server.domain.errors import Unavailable
from sagad_server.storage.memory import MemoryStore


async def events(server: Server, **fields: Any) -> list[pb.AuditEvent]:
    response = await server.admin.ListAuditEvents(pb.ListAuditEventsRequest(**fields))
    return list(response.events)


async def test_every_change_of_a_definition_is_listed_with_who_made_it(server: Server) -> None:
    await server.create(chain("one"))
    await server.create(chain("one"))
    name = {"definition_id": "order", "version": "1.0.0"}
    calls = server.definitions
    await calls.DeactivateDefinition(definition_service_pb2.DeactivateDefinitionRequest(**name))
    await calls.ActivateDefinition(definition_service_pb2.ActivateDefinitionRequest(**name))
    await calls.DeleteDefinition(definition_service_pb2.DeleteDefinitionRequest(**name))
    listed = await events(server)
    assert [pb.AuditKind.Name(event.kind).removeprefix("AUDIT_KIND_DEFINITION_") for event in listed] == [
        "DELETED",
        "ACTIVATED",
        "DEACTIVATED",
        "CREATED",
    ]
    for event in listed:
        assert (event.namespace, event.subject, event.details) == ("default", "order 1.0.0", "{}")
        assert event.actor.startswith("ipv4:")
        assert event.HasField("time")
    assert await events(server, namespace="other") == []


async def test_a_definition_that_was_only_checked_is_not_audited(server: Server) -> None:
    server.participant.implement(actions={"do_one"}, compensations={"undo_one"})
    request = definition_service_pb2.CreateDefinitionRequest(definition=chain("one"), validate_only=True)
    await server.definitions.CreateDefinition(request)
    assert await events(server) == []


async def test_a_purge_is_listed_with_its_filter_and_count_and_a_dry_run_is_not(server: Server) -> None:
    await server.create(chain("one"))
    await server.start(wait=True)
    chosen = saga_pb2.SagaFilter(definition_id="order")
    await server.admin.PurgeSagas(pb.PurgeSagasRequest(filter=chosen, dry_run=True))
    await server.admin.PurgeSagas(pb.PurgeSagasRequest(filter=chosen))
    (event,) = await events(server, kinds=[pb.AUDIT_KIND_SAGAS_PURGED])
    assert json.loads(event.details) == {"filter": {"definitionId": "order"}, "limit": 1000, "purged": 1}


async def test_the_pages_hold_every_event_once(server: Server) -> None:
    for version in range(5):
        await server.create(chain("one", version=f"1.0.{version}"))
    request = pb.ListAuditEventsRequest(page_size=2)
    subjects: list[str] = []
    while True:
        page = await server.admin.ListAuditEvents(request)
        subjects += [event.subject for event in page.events]
        if not page.next_page_token:
            break
        assert len(page.events) == 2
        request.page_token = page.next_page_token
    assert subjects == [f"order 1.0.{version}" for version in (4, 3, 2, 1, 0)]
    refusal = await refused(server.admin.ListAuditEvents(pb.ListAuditEventsRequest(actor="x", page_token="forged")))
    assert set(refusal.violations) == {"page_token"}


async def test_every_fault_of_a_request_is_named(server: Server) -> None:
    request = pb.ListAuditEventsRequest(namespace="NO", kinds=[99], page_size=-1, actor="x" * 501)  # type: ignore[list-item]
    request.time_min.seconds = request.time_max.seconds = 5
    refusal = await refused(server.admin.ListAuditEvents(request))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"namespace", "kinds[0]", "page_size", "actor", "time_max"}


async def test_a_drain_is_listed_in_every_namespace_and_goes_on_without_the_store(
    participant: ScriptedParticipant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(MemoryStore(), participant) as server:
        await server.admin.DrainNode(pb.DrainNodeRequest())
        assert [event.subject for event in await events(server, namespace="any")] == ["test-node"]

    async def away(_: object) -> None:
        raise Unavailable("PostgreSQL does not answer")

    async with running_server(MemoryStore(), participant) as server:
        monkeypatch.setattr(server.store, "append_audit", away)
        await server.admin.DrainNode(pb.DrainNodeRequest())
        assert server.app.stopping


async def test_the_clean_up_of_a_node_is_listed(participant: ScriptedParticipant) -> None:
    service = {"cleanup_interval": "1s", "retention": "0s"}
    async with running_server(MemoryStore(), participant, service=service) as server:
        await server.create(chain("one"))
        await server.start(wait=True)
        await eventually(lambda: len(server.store.database.audit) == 2)
        (event,) = await events(server, actor="node test-node")
        assert json.loads(event.details) == {"retention_s": 0.0, "purged": 1}
