"""RepairSagas: RetrySaga, AbandonSaga and CompensateSaga for all that a filter selects."""

import json
from typing import Any

import grpc
import pytest
from support.definitions import definition, pivot, retriable, step
from support.scripted_participant import ScriptedParticipant, failure, pending, success
from support.server import Server, chain, refused, rest, running_server

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import AUDIT_KIND_SAGAS_REPAIRED, AuditEvent, ListAuditEventsRequest
from sagad_server.api import repair as repairs
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_database import MemoryDatabase

PARKED, RUNNING = saga_pb2.SAGA_STATE_PARKED, saga_pb2.SAGA_STATE_RUNNING
SUCCEEDED, COMPENSATED = saga_pb2.SAGA_STATE_SUCCEEDED, saga_pb2.SAGA_STATE_COMPENSATED
RETRY, ABANDON, COMPENSATE = pb.REPAIR_ACTION_RETRY, pb.REPAIR_ACTION_ABANDON, pb.REPAIR_ACTION_COMPENSATE


@pytest.fixture(autouse=True)
async def _definitions(server: Server) -> None:
    await server.create(chain("reserve"))
    await server.create(definition(pivot("pay", maxRetries=0), retriable("ship"), definitionId="sale"))


async def repair(server: Server, action: Any, **fields: Any) -> list[pb.RepairSagasResponse]:
    request = pb.RepairSagasRequest(action=action, reason="carrier is up", **fields)
    return await rest(server.sagas.RepairSagas(request))


def counts(message: pb.RepairSagasResponse) -> tuple[int, int, int, bool]:
    return message.selected, message.repaired, message.refused, message.more


async def parked(server: Server, number: int, **fields: Any) -> list[str]:
    server.participant.always("do_ship", failure("NO_CARRIER"))
    sagas = [await server.start("sale", wait=True, **fields) for _ in range(number)]
    assert {saga.state for saga in sagas} == {PARKED}
    server.participant.always("do_ship", success())
    return [saga.saga_id for saga in sagas]


async def audited(server: Server) -> list[AuditEvent]:
    request = ListAuditEventsRequest(kinds=[AUDIT_KIND_SAGAS_REPAIRED])
    return list((await server.admin.ListAuditEvents(request)).events)


async def test_all_that_is_parked_is_retried_and_nothing_else_is_touched(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "_AT_ONCE", 2)
    monkeypatch.setattr(repairs, "_PAGE", 2)
    sagas = await parked(server, 5)
    other = await server.start(wait=True)

    told = await repair(server, RETRY)

    assert [counts(message) for message in told] == [(5, done, 0, False) for done in (0, 2, 4, 5)]
    for saga_id in sagas:
        assert (await server.settled(saga_id)).state == SUCCEEDED
    (event, *_) = [
        event
        for event in (await server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id=sagas[0]))).events
        if event.cause == saga_pb2.EVENT_CAUSE_RETRY_CALLED
    ]
    assert event.reason == "carrier is up"
    assert event.actor.startswith("ipv4:")
    assert (await server.get(other.saga_id)).revision == other.revision


async def test_a_dry_run_changes_nothing_and_tells_what_would_be_refused(server: Server) -> None:
    (stuck,) = await parked(server, 1)
    done = await server.start(wait=True)
    chosen = saga_pb2.SagaFilter(states=[PARKED, SUCCEEDED])

    last = (await repair(server, COMPENSATE, filter=chosen, dry_run=True))[-1]

    assert counts(last) == (2, 1, 1, False)
    assert [(one.saga_id, one.reason) for one in last.refusals] == [(stuck, "PAST_PIVOT")]
    assert (await server.get(stuck)).state == PARKED
    assert (await server.get(done.saga_id)).state == SUCCEEDED
    assert await audited(server) == []

    last = (await repair(server, COMPENSATE, filter=chosen))[-1]
    assert counts(last) == (2, 1, 1, False)
    assert [(one.saga_id, one.reason) for one in last.refusals] == [(stuck, "PAST_PIVOT")]
    assert (await server.settled(done.saga_id)).state == COMPENSATED


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_refusal_of_one_does_not_stop_the_others(server: Server, dry_run: bool) -> None:
    held = server.participant.hold("do_reserve")
    running = await server.start()
    await server.participant.called("do_reserve")
    sagas = await parked(server, 2)

    last = (await repair(server, ABANDON, filter=saga_pb2.SagaFilter(states=[RUNNING, PARKED]), dry_run=dry_run))[-1]

    assert counts(last) == (3, 2, 1, False)
    assert [(one.saga_id, one.reason) for one in last.refusals] == [(running.saga_id, "NOT_PARKED")]
    expected = PARKED if dry_run else saga_pb2.SAGA_STATE_ABANDONED
    assert {(await server.get(saga_id)).state for saga_id in sagas} == {expected}
    held.release()


async def test_at_most_the_limit_is_repaired_and_more_is_told(server: Server) -> None:
    await parked(server, 3)
    assert counts((await repair(server, ABANDON, limit=2))[-1]) == (2, 2, 0, True)
    assert counts((await repair(server, ABANDON, limit=2))[-1]) == (1, 1, 0, False)
    assert [counts(message) for message in await repair(server, ABANDON)] == [(0, 0, 0, False)]


async def test_a_call_is_audited_once_with_its_reason_filter_and_counts(server: Server) -> None:
    await parked(server, 2)
    await repair(server, RETRY, filter=saga_pb2.SagaFilter(definition_id="sale"))
    (event,) = await audited(server)
    assert (event.namespace, event.subject, event.reason) == ("default", "RETRY", "carrier is up")
    assert json.loads(event.details) == {
        "filter": {"definitionId": "sale"},
        "limit": 1000,
        "selected": 2,
        "repaired": 2,
        "refused": 0,
    }


async def test_a_saga_that_cannot_be_read_is_refused_and_the_others_are_repaired(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await parked(server, 2)
    load = server.store.load

    async def broken(key: Any) -> Any:
        if key[1] == bad:
            raise ZeroDivisionError
        return await load(key)

    monkeypatch.setattr(server.store, "load", broken)
    last = (await repair(server, RETRY))[-1]
    assert counts(last) == (2, 1, 1, False)
    assert [(one.saga_id, one.reason) for one in last.refusals] == [(bad, "INTERNAL")]
    assert "incident" in last.refusals[0].message
    assert (await server.settled(good)).state == SUCCEEDED


async def test_every_fault_of_a_request_is_named(server: Server) -> None:
    request = pb.RepairSagasRequest(namespace="NO", limit=10_001, filter=saga_pb2.SagaFilter(version="x"))
    refusal = await refused(server.sagas.RepairSagas(request))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"namespace", "limit", "filter.version", "action", "reason"}


async def test_nothing_is_compensated_by_a_filter_that_names_no_states(server: Server) -> None:
    refusal = await refused(server.sagas.RepairSagas(pb.RepairSagasRequest(action=COMPENSATE, reason="all of it")))
    assert set(refusal.violations) == {"filter.states"}


async def test_sagas_that_another_node_drives_are_repaired_by_it(participant: ScriptedParticipant) -> None:
    database = MemoryDatabase()
    first = running_server(MemoryStore(database), participant, node={"name": "one", "lease": "1s"})
    second = running_server(MemoryStore(database), participant, node={"name": "two", "lease": "1s"})
    async with first as one, second as two:
        branches = [step("aa"), step("bb", maxRetries=0)]
        sale = definition(pivot("pay"), retriable("cc", dependsOn=["pay"]), retriable("dd", dependsOn=["pay"]))
        await one.create(definition(*branches, definitionId="plain"))
        await one.create(sale)
        participant.script("do_aa", pending())
        participant.script("do_cc", pending())
        participant.script("do_dd", failure("NO"))
        await one.start("plain", saga_id="moves")
        await one.start(saga_id="half")
        await participant.called("do_aa")
        await participant.called("do_dd")
        chosen = saga_pb2.SagaFilter(states=[RUNNING])
        dry = (await repair(two, COMPENSATE, filter=chosen, dry_run=True))[-1]
        last = (await repair(two, COMPENSATE, filter=chosen))[-1]
        for message in (dry, last):
            assert counts(message) == (2, 1, 1, False)
            assert [(each.saga_id, each.reason) for each in message.refusals] == [("half", "PAST_PIVOT")]
        assert (await two.settled("moves")).state == COMPENSATED
        assert counts((await repair(two, RETRY))[-1]) == (1, 1, 0, False)
