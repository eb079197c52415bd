"""GetSaga, ListSagas, ListSagaEvents, GetSagaStats."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from support.scripted_participant import failure, json_payload, success
from support.server import Server, chain, refused

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasRequest
from sagad.v1.common_pb2 import FAILURE_CATEGORY_BUSINESS, Payload
from sagad_server.api.paging import MAX_PAGE_BYTES
from sagad_server.storage.memory import MemoryStore

FOREIGN = ("not base64!", base64.urlsafe_b64encode(b"x" * 40).decode(), "", "ä", "A" * 4096)


@pytest.fixture(autouse=True)
async def _order(server: Server) -> None:
    await server.create(chain("reserve", "charge"))


async def listed(server: Server, **fields: Any) -> list[str]:
    response = await server.sagas.ListSagas(pb.ListSagasRequest(**fields))
    return [saga.saga_id for saga in response.sagas]


async def pages(call: Any, request: Any) -> list[Any]:
    """The responses of all pages."""
    found = []
    while True:
        found.append(await call(request))
        if not found[-1].next_page_token:
            return found
        request.page_token = found[-1].next_page_token


def after(time: Timestamp) -> Timestamp:
    """A nanosecond later."""
    return Timestamp(seconds=time.seconds, nanos=time.nanos + 1)


async def test_a_saga_is_shown_whole_unless_basic_is_asked_for(server: Server) -> None:
    server.participant.script("do_reserve", success({"reservation": 7}))
    await server.start(saga_id="s1", input={"sku": "a"}, metadata={"trace": "1"}, wait=True)
    full, basic = await server.get("s1"), await server.get("s1", view=saga_pb2.SAGA_VIEW_BASIC)
    assert full.input == json_payload({"sku": "a"})
    assert full.steps[0].output == json_payload({"reservation": 7})
    assert dict(full.metadata) == {"trace": "1"}
    for field in ("input", "metadata"):
        full.ClearField(field)
    full.steps[0].ClearField("output")
    assert full == basic


async def test_a_saga_reads_the_same_in_memory_and_from_the_store(server: Server) -> None:
    held = server.participant.hold("do_charge")
    await server.start(saga_id="s1", input={"sku": "a"}, labels={"a": "b"})
    await server.participant.called("do_charge")
    in_memory = await server.get("s1")
    active = server.engine.sagas.pop(("default", "s1"))
    from_store = await server.get("s1")
    server.engine.sagas[active.key] = active
    held.release()
    assert in_memory == from_store


async def test_an_unknown_saga_is_not_found(server: Server) -> None:
    for call in (
        server.get("nothing"),
        server.get("s1", namespace="elsewhere"),
        server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="nothing")),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SAGA_NOT_FOUND")


async def test_a_purged_saga_shows_its_end_only(server: Server) -> None:
    saga = await server.start(saga_id="s1", labels={"a": "b"}, wait=True)
    await server.admin.PurgeSagas(PurgeSagasRequest())
    tombstone = await server.get("s1")
    assert tombstone == saga_pb2.Saga(
        namespace="default",
        saga_id="s1",
        uid=saga.uid,
        state=saga.state,
        revision=saga.revision,
        create_time=saga.create_time,
        update_time=saga.update_time,
        end_time=saga.end_time,
        epoch=saga.epoch,
        purged=True,
    )
    refusal = await refused(server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s1")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "PURGED")


async def test_a_waiting_step_shows_when_it_is_called_again(server: Server) -> None:
    definition = chain("reserve", definitionId="patient")
    definition.steps[0].max_retries = 1
    definition.steps[0].retry.initial_backoff.FromSeconds(3600)
    definition.steps[0].retry.max_backoff.FromSeconds(3600)
    await server.create(definition)
    server.participant.script("do_reserve", grpc.StatusCode.UNAVAILABLE)
    stream = server.sagas.WatchSaga(pb.WatchSagaRequest(saga_id=(await server.start("patient", saga_id="s1")).saga_id))
    while (await server.get("s1")).revision < 2:
        await stream.read()
    stream.cancel()
    (step,) = (await server.get("s1")).steps
    (event,) = (await server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s1"))).events[1:]
    assert step.state == saga_pb2.STEP_STATE_BACKING_OFF
    assert step.failure.reason == "UNAVAILABLE"
    assert step.may_have_happened
    assert event.changes[0].delay.ToMilliseconds() > 0
    expected = event.time.ToDatetime() + event.changes[0].delay.ToTimedelta()
    assert step.next_attempt_time.ToDatetime() == expected


async def test_sagas_are_listed_newest_first_without_payloads(server: Server) -> None:
    for number in range(5):
        await server.start(saga_id=f"s{number}", input={"n": number}, metadata={"a": "b"}, wait=True)
    response = await server.sagas.ListSagas(pb.ListSagasRequest())
    assert [saga.saga_id for saga in response.sagas] == ["s4", "s3", "s2", "s1", "s0"]
    assert not any(saga.HasField("input") or saga.metadata for saga in response.sagas)
    assert not response.next_page_token
    assert await listed(server, namespace="elsewhere") == []


async def test_a_list_in_view_full_has_what_get_has(server: Server) -> None:
    await server.start(saga_id="s1", input={"n": 1}, metadata={"a": "b"}, wait=True)
    response = await server.sagas.ListSagas(pb.ListSagasRequest(view=saga_pb2.SAGA_VIEW_FULL))
    assert list(response.sagas) == [await server.get("s1")]


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 7, 1000])
async def test_pages_together_are_the_whole_list(server: Server, page_size: int) -> None:
    for number in range(6):
        await server.start(saga_id=f"s{number}", wait=True)
    found = await pages(server.sagas.ListSagas, pb.ListSagasRequest(page_size=page_size))
    assert [saga.saga_id for page in found for saga in page.sagas] == [f"s{number}" for number in range(5, -1, -1)]
    assert [len(page.sagas) for page in found[:-1]] == [page_size] * (len(found) - 1)
    events = await pages(server.sagas.ListSagaEvents, pb.ListSagaEventsRequest(saga_id="s1", page_size=page_size))
    assert [event.revision for page in events for event in page.events] == [1, 2, 3]


async def test_a_page_may_be_empty_and_have_more_behind_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that sagad looks at millions in one call."""
    monkeypatch.setattr("sagad_server.api.saga_service.MOST_SCANNED", 1)
    await server.create(chain("reserve", definitionId="other"))
    for number in range(3):
        await server.start("other" if number else "order", saga_id=f"gold{number}", labels={"tier": "gold"}, wait=True)
    for number in range(6):
        await server.start(saga_id=f"s{number}", wait=True)
    chosen = saga_pb2.SagaFilter(definition_id="order", labels={"tier": "gold"})

    found = await pages(server.sagas.ListSagas, pb.ListSagasRequest(filter=chosen, page_size=1))

    assert [saga.saga_id for page in found for saga in page.sagas] == ["gold0"]
    assert [len(page.sagas) for page in found[:3]] == [0, 0, 0]


async def test_a_page_ends_early_rather_than_become_too_large_for_a_client(server: Server) -> None:
    payload = Payload(data=b"x" * 250_000)
    for number in range(20):
        request = pb.StartSagaRequest(definition_id="order", saga_id=f"s{number}", input=payload, wait=True)
        await server.sagas.StartSaga(request)
    found = await pages(server.sagas.ListSagas, pb.ListSagasRequest(view=saga_pb2.SAGA_VIEW_FULL, page_size=1000))
    assert len(found) > 1
    assert sum(len(page.sagas) for page in found) == 20
    assert all(page.ByteSize() < MAX_PAGE_BYTES + 10_000 for page in found)


async def test_a_token_is_bound_to_its_filter(server: Server) -> None:
    for number in range(3):
        await server.start(saga_id=f"s{number}", wait=True)
    token = (await server.sagas.ListSagas(pb.ListSagasRequest(page_size=1))).next_page_token
    assert await listed(server, page_token=token) == ["s1", "s0"]
    events = pb.ListSagaEventsRequest(saga_id="s0", page_size=1)
    event_token = (await server.sagas.ListSagaEvents(events)).next_page_token
    other_filter = saga_pb2.SagaFilter(definition_id="order")
    for call in (
        server.sagas.ListSagas(pb.ListSagasRequest(page_token=token, filter=other_filter)),
        server.sagas.ListSagas(pb.ListSagasRequest(page_token=token, namespace="elsewhere")),
        server.sagas.ListSagas(pb.ListSagasRequest(page_token=event_token)),
        server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s1", page_token=event_token)),
    ):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.violations) == {"page_token"}


@pytest.mark.parametrize("token", [token for token in FOREIGN if token])
async def test_a_garbled_token_is_invalid(server: Server, token: str) -> None:
    refusal = await refused(server.sagas.ListSagas(pb.ListSagasRequest(page_token=token)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"page_token"}


@pytest.mark.parametrize("page_size", [-1, 1001])
async def test_a_page_size_out_of_bounds_is_invalid(server: Server, page_size: int) -> None:
    for call in (
        server.sagas.ListSagas(pb.ListSagasRequest(page_size=page_size)),
        server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s1", page_size=page_size)),
    ):
        refusal = await refused(call)
        assert refusal.violations == {"page_size": f"is {page_size}; 0-1,000 is allowed"}


async def test_a_filter_selects_by_each_of_its_fields(server: Server) -> None:
    await server.create(chain("reserve", "charge", definitionId="other", version="2.0.0"))
    good = await server.start(saga_id="good", labels={"tier": "gold"}, wait=True)
    server.participant.script("do_charge", failure(), failure())
    bad = await server.start("other", saga_id="bad", labels={"tier": "lead"}, wait=True)
    server.participant.script("undo_reserve", failure())
    stuck = await server.start("other", saga_id="stuck", labels={"tier": "lead", "x": "y"}, wait=True)
    assert stuck.state == saga_pb2.SAGA_STATE_PARKED
    selected: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["stuck", "bad", "good"]),
        ({"states": [saga_pb2.SAGA_STATE_PARKED, saga_pb2.SAGA_STATE_SUCCEEDED]}, ["stuck", "good"]),
        ({"definition_id": "order"}, ["good"]),
        ({"version": "2.0.0"}, ["stuck", "bad"]),
        ({"labels": {"tier": "lead"}}, ["stuck", "bad"]),
        ({"labels": {"tier": "lead", "x": "y"}}, ["stuck"]),
        ({"create_time_min": bad.create_time}, ["stuck", "bad"]),
        ({"create_time_min": after(bad.create_time)}, ["stuck"]),
        ({"create_time_max": bad.create_time}, ["good"]),
        ({"create_time_max": after(bad.create_time)}, ["bad", "good"]),
        ({"end_time_max": after(good.end_time)}, ["good"]),
        ({"end_time_min": bad.end_time}, ["bad"]),
        ({"parking_reasons": [saga_pb2.PARKING_REASON_COMPENSATION_REFUSED]}, ["stuck"]),
        ({"categories": [FAILURE_CATEGORY_BUSINESS]}, ["stuck", "bad"]),
        ({"categories": [FAILURE_CATEGORY_BUSINESS], "states": [saga_pb2.SAGA_STATE_COMPENSATED]}, ["bad"]),
    ]
    for fields, saga_ids in selected:
        chosen = saga_pb2.SagaFilter(**fields)
        assert await listed(server, filter=chosen) == saga_ids, fields
        stats = (await server.sagas.GetSagaStats(pb.GetSagaStatsRequest(filter=chosen))).stats
        assert stats.total == len(saga_ids), fields


async def test_every_fault_of_a_filter_is_named(server: Server) -> None:
    chosen = saga_pb2.SagaFilter(
        states=[0, 77],
        definition_id="x",
        version="one",
        labels={"KEY": "v"},
        create_time_min=Timestamp(seconds=2),
        create_time_max=Timestamp(seconds=1),
        end_time_min=Timestamp(seconds=10**15),
        parking_reasons=[99],
        categories=[-1],
    )
    for call in (
        server.sagas.ListSagas(pb.ListSagasRequest(filter=chosen)),
        server.sagas.GetSagaStats(pb.GetSagaStatsRequest(filter=chosen)),
        server.admin.PurgeSagas(PurgeSagasRequest(filter=chosen)),
    ):
        assert set((await refused(call)).violations) == {
            "filter.states[0]",
            "filter.states[1]",
            "filter.definition_id",
            "filter.version",
            "filter.labels['KEY']",
            "filter.create_time_max",
            "filter.end_time_min",
            "filter.parking_reasons[0]",
            "filter.categories[0]",
        }


async def test_the_latest_instant_there_is_can_be_asked_for(server: Server) -> None:
    await server.start(saga_id="s1", wait=True)
    latest = Timestamp(seconds=253_402_300_799, nanos=999_999_999)
    earliest = Timestamp(seconds=-62_135_596_800)
    assert await listed(server, filter=saga_pb2.SagaFilter(create_time_max=latest)) == ["s1"]
    assert await listed(server, filter=saga_pb2.SagaFilter(create_time_min=earliest)) == ["s1"]


async def test_events_tell_what_each_transition_did(server: Server) -> None:
    server.participant.script("do_reserve", success({"reservation": 7}))
    server.participant.script("do_charge", failure("NO_MONEY"))
    await server.start(saga_id="s1", wait=True)
    basic = (await server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s1"))).events
    full = await server.sagas.ListSagaEvents(pb.ListSagaEventsRequest(saga_id="s1", view=saga_pb2.SAGA_VIEW_FULL))
    started, reserved, refused_, undone = basic
    assert {(e.namespace, e.saga_id, e.definition_id, e.version) for e in basic} == {
        ("default", "s1", "order", "1.0.0")
    }
    assert [event.cause for event in basic] == [saga_pb2.EVENT_CAUSE_STARTED, *[saga_pb2.EVENT_CAUSE_ANSWERED] * 3]
    assert [change.step_id for change in started.changes] == ["reserve"]
    assert [change.step_id for change in reserved.changes] == ["reserve", "charge"]
    assert not reserved.changes[0].HasField("output")
    assert full.events[1].changes[0].output == json_payload({"reservation": 7})
    assert refused_.failure.reason == "NO_MONEY"
    assert refused_.state == saga_pb2.SAGA_STATE_COMPENSATING
    assert undone.state == saga_pb2.SAGA_STATE_COMPENSATED
    assert started.time.ToDatetime() <= undone.time.ToDatetime()


async def test_stats_count_by_state_and_measure_the_ended(server: Server) -> None:
    empty = (await server.sagas.GetSagaStats(pb.GetSagaStatsRequest())).stats
    assert empty == saga_pb2.SagaStats()
    for _ in range(3):
        await server.start(wait=True)
    server.participant.script("do_charge", failure())
    await server.start(wait=True)
    held = server.participant.hold("do_reserve")
    running = await server.start()
    stats = (await server.sagas.GetSagaStats(pb.GetSagaStatsRequest())).stats
    held.release()
    assert stats.total == 5
    assert [(count.state, count.count) for count in stats.by_state] == [
        (saga_pb2.SAGA_STATE_RUNNING, 1),
        (saga_pb2.SAGA_STATE_SUCCEEDED, 3),
        (saga_pb2.SAGA_STATE_COMPENSATED, 1),
    ]
    assert stats.success_rate == 0.75
    assert timedelta(0) < stats.duration_p50.ToTimedelta() <= stats.duration_p99.ToTimedelta()
    assert stats.oldest_running_time == running.create_time


@pytest.mark.parametrize("store", ["memory"], indirect=True)  # where data can be broken by hand
async def test_one_saga_that_cannot_be_read_hides_no_other(server: Server) -> None:
    assert isinstance(server.store, MemoryStore)
    for saga_id in ("good", "poison"):
        await server.start(saga_id=saga_id, wait=True)
    row = server.store.database.sagas["default", "poison"].row
    row.body, row.incident_id, row.parking_mask = b"\xff", "incident-1", 1 << 7
    row.state, row.park_time = saga_pb2.SAGA_STATE_PARKED, datetime(2026, 1, 1, tzinfo=UTC)
    for view in (saga_pb2.SAGA_VIEW_BASIC, saga_pb2.SAGA_VIEW_FULL):
        assert await listed(server, view=view) == ["poison", "good"]
    saga = await server.get("poison")
    assert saga.state == saga_pb2.SAGA_STATE_PARKED
    (parking,) = saga.parkings
    assert (parking.reason, parking.incident_id) == (saga_pb2.PARKING_REASON_INTERNAL, "incident-1")
