"""The client against a real sagad."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.cutting_proxy import CuttingProxy
from support.recipes import compensating, definition, parking, succeeding

from sagad.v1 import saga_pb2
from sagad.v1.saga_pb2 import SagaFilter
from sagad_client import (
    Aborted,
    AlreadyExists,
    Backoff,
    Client,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    from_payload,
    new_saga_id,
    succeeded,
)

RUNNING, PARKED = saga_pb2.SAGA_STATE_RUNNING, saga_pb2.SAGA_STATE_PARKED
SUCCEEDED, COMPENSATED = saga_pb2.SAGA_STATE_SUCCEEDED, saga_pb2.SAGA_STATE_COMPENSATED


@pytest.fixture
async def client(sagad: Any) -> AsyncIterator[Client]:
    async with Client(sagad.address) as client:
        yield client


async def created(client: Client, make: Callable[[str], dict[str, Any]]) -> str:
    """Store a definition under an id of its own, and return the id."""
    definition_id = f"d-{new_saga_id()}"
    await client.definitions.create(definition(make(definition_id)))
    return definition_id


async def test_a_started_saga_can_be_got_listed_counted_and_its_events_read(client: Client) -> None:
    recipe = await created(client, succeeding)
    started = await client.start(recipe, {"n": 1}, labels={"test": recipe}, metadata={"trace": "7"}, timeout=60)
    saga = await client.wait(started.saga_id, timeout_s=20)
    assert (saga.state, saga.definition_id, saga.timeout.seconds) == (SUCCEEDED, recipe, 60)
    assert from_payload(saga.input) == {"n": 1}
    assert dict(saga.metadata) == {"trace": "7"}
    assert [one.saga_id async for one in client.list(SagaFilter(labels={"test": recipe}))] == [saga.saga_id]
    events = [event async for event in client.events(saga.saga_id, page_size=1)]
    assert [event.revision for event in events] == list(range(1, saga.revision + 1))
    stats = await client.stats(SagaFilter(definition_id=recipe))
    assert (stats.total, stats.success_rate) == (1, 1.0)
    assert await client.definitions.stats(recipe) == stats


async def test_a_start_that_waits_answers_when_the_saga_has_ended(client: Client) -> None:
    saga = await client.start(await created(client, compensating), {}, wait=True, wait_timeout_s=20)
    assert saga.state == COMPENSATED
    assert saga.failure.step_id == "second"


async def test_a_repeated_start_changes_nothing_and_another_one_is_refused(client: Client) -> None:
    recipe, saga_id = await created(client, succeeding), new_saga_id()
    first = await client.start(recipe, {"n": 1}, saga_id=saga_id, wait=True)
    assert (await client.start(recipe, {"n": 1}, saga_id=saga_id)).uid == first.uid
    with pytest.raises(AlreadyExists) as caught:
        await client.start(recipe, {"n": 2}, saga_id=saga_id)
    assert caught.value.reason == "SAGA_EXISTS"


async def test_a_watch_shows_a_snapshot_and_then_every_transition_to_the_end(client: Client) -> None:
    saga = await client.start(await created(client, succeeding))
    messages = [message async for message in client.watch(saga.saga_id)]
    assert messages[0].WhichOneof("update") == "snapshot"
    revisions = [message.revision for message in messages]
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))
    last = messages[-1]
    assert SUCCEEDED in (last.event.state, last.snapshot.state)


async def test_a_watch_through_a_line_that_is_cut_again_and_again_sees_every_revision_once(
    sagad: Any, client: Client
) -> None:
    saga = await client.start(await created(client, lambda name: succeeding(name, steps=12)), wait=True)
    async with CuttingProxy(sagad.address, after_bytes=900) as proxy:
        backoff = Backoff(attempts=100, initial_s=0.01, max_s=0.05)
        async with Client(proxy.address, backoff=backoff) as cut_off:
            seen = [message.revision async for message in cut_off.watch(saga.saga_id, 1)]
    assert seen == list(range(2, saga.revision + 1))
    assert proxy.cuts > 0


async def test_a_saga_that_has_succeeded_can_be_compensated(client: Client) -> None:
    saga = await client.start(await created(client, succeeding), wait=True)
    await client.compensate(saga.saga_id, reason="cancelled")
    assert (await client.wait(saga.saga_id, timeout_s=20)).state == COMPENSATED
    assert (await client.compensate(saga.saga_id)).state == COMPENSATED
    reasons = [event.reason async for event in client.events(saga.saga_id) if event.reason]
    assert reasons == ["cancelled"]


async def test_a_parked_saga_is_found_and_skipped_to_its_end(client: Client) -> None:
    recipe = await created(client, parking)
    saga = await client.start(recipe, {}, wait=True)
    assert (saga.state, saga.parkings[0].step_id) == (PARKED, "ship")
    by_reason = SagaFilter(definition_id=recipe, parking_reasons=[saga_pb2.PARKING_REASON_EXPRESSION_FAILED])
    assert [one.saga_id async for one in client.list(by_reason)] == [saga.saga_id]
    await client.skip_step(saga.saga_id, "ship", revision=saga.revision, reason="by hand", output={"parcel": 7})
    ended = await client.wait(saga.saga_id, timeout_s=20)
    assert ended.state == SUCCEEDED
    assert from_payload(ended.steps[2].output) == {"parcel": 7}


async def test_a_retry_needs_the_revision_that_the_saga_has(client: Client) -> None:
    saga = await client.start(await created(client, parking), {}, wait=True)
    with pytest.raises(Aborted):
        await client.retry(saga.saga_id, revision=saga.revision - 1, reason="mended")
    again = await client.retry(saga.saga_id, revision=saga.revision, reason="mended", step_id="ship", input={"x": 1})
    assert again.revision > saga.revision
    assert (await client.wait(saga.saga_id, timeout_s=20)).state == SUCCEEDED


async def test_a_parked_saga_can_be_abandoned_and_then_nothing_else(client: Client) -> None:
    saga = await client.start(await created(client, parking), {}, wait=True)
    gone = await client.abandon(saga.saga_id, revision=saga.revision, reason="settled outside")
    assert gone.state == saga_pb2.SAGA_STATE_ABANDONED
    with pytest.raises(FailedPrecondition) as caught:
        await client.compensate(saga.saga_id)
    assert caught.value.reason == "ABANDONED"


async def test_a_wrong_completion_token_is_refused(client: Client) -> None:
    saga = await client.start(await created(client, succeeding), wait=True)
    with pytest.raises(PermissionDenied) as caught:
        await client.complete_step(saga.saga_id, "s0", "forged", succeeded({"n": 1}))
    assert caught.value.reason == "WRONG_COMPLETION_TOKEN"


async def test_what_does_not_exist_is_not_found(client: Client) -> None:
    for call in (client.get("nothing"), client.start("nothing"), client.definitions.get("nothing")):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(NotFound):
        await anext(client.watch("nothing"))


async def test_a_watch_from_a_revision_that_is_not_known_yet_is_out_of_range(client: Client) -> None:
    saga = await client.start(await created(client, succeeding), wait=True)
    with pytest.raises(OutOfRange):
        await anext(client.watch(saga.saga_id, 1000))


async def test_every_fault_of_a_request_is_a_violation(client: Client) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.start("x", labels={"UPPER": "x"}, metadata={"grpc-x": "y"}, timeout=0.1)
    assert {fault.field.partition("[")[0] for fault in caught.value.violations} >= {"definition_id", "timeout"}
    assert len(caught.value.violations) == 4


async def test_a_payload_may_have_256_kib_and_no_more(client: Client) -> None:
    recipe = await created(client, succeeding)
    data = b"x" * (200 * 1024)
    saga = await client.start(recipe, data, wait=True)
    assert from_payload((await client.get(saga.saga_id)).input) == data
    with pytest.raises(InvalidArgument):
        await client.start(recipe, b"x" * (257 * 1024))


async def test_definitions_are_kept_activated_and_deleted(client: Client) -> None:
    definition_id = f"d-{new_saga_id()}"
    first, second = (definition({**succeeding(definition_id), "version": version}) for version in ("1.2.0", "1.10.0"))
    checked = await client.definitions.create(first, validate_only=True)
    assert checked.definition.definition_id == definition_id
    with pytest.raises(NotFound):
        await client.definitions.get(definition_id)
    assert (await client.definitions.create(first)).definition == (await client.definitions.create(first)).definition
    await client.definitions.create(second)
    assert (await client.definitions.get(definition_id)).version == "1.10.0"
    assert not (await client.definitions.deactivate(definition_id, "1.10.0")).active
    assert (await client.definitions.get(definition_id)).version == "1.2.0"
    versions = [one.version async for one in client.definitions.list(definition_id, page_size=1)]
    assert versions == ["1.10.0", "1.2.0"]
    assert [one.version async for one in client.definitions.list(definition_id, active_only=True)] == ["1.2.0"]
    assert (await client.definitions.activate(definition_id, "1.10.0")).active
    await client.definitions.delete(definition_id, "1.10.0")
    with pytest.raises(NotFound):
        await client.definitions.delete(definition_id, "1.10.0")
    await client.start(definition_id, wait=True)
    with pytest.raises(FailedPrecondition) as caught:
        await client.definitions.delete(definition_id, "1.2.0")
    assert caught.value.reason == "DEFINITION_IN_USE"


async def test_the_server_shows_itself_its_health_and_its_participants(client: Client) -> None:
    assert (await client.admin.server_info()).version
    assert (await client.admin.health_details()).healthy
    echo = next(one for one in await client.admin.participants() if one.name == "echo")
    assert echo.reachable
    assert "do" in echo.actions
    saga = await client.start(await created(client, succeeding), wait=True)
    assert saga.state == SUCCEEDED
    assert (await client.admin.service_stats()).started_total >= 1


async def test_purged_sagas_leave_their_end_behind(client: Client) -> None:
    recipe = await created(client, succeeding)
    saga = await client.start(recipe, wait=True)
    chosen = SagaFilter(definition_id=recipe)
    assert (await client.admin.purge(chosen, dry_run=True)).purged == 1
    assert (await client.admin.purge(chosen)).purged == 1
    left = await client.get(saga.saga_id)
    assert (left.purged, left.state) == (True, SUCCEEDED)


async def test_a_namespace_sees_only_its_own(sagad: Any, client: Client) -> None:
    saga = await client.start(await created(client, succeeding), wait=True)
    async with Client(sagad.address, namespace="elsewhere") as other:
        with pytest.raises(NotFound):
            await other.get(saga.saga_id)


async def test_pages_of_a_list_have_no_gap_and_no_repeat(client: Client) -> None:
    recipe = await created(client, lambda name: succeeding(name, steps=1))
    started = await asyncio.gather(*(client.start(recipe) for _ in range(25)))
    chosen = SagaFilter(definition_id=recipe)
    listed = [saga.saga_id async for saga in client.list(chosen, page_size=7)]
    assert len(listed) == 25
    assert set(listed) == {saga.saga_id for saga in started}
    page = await client.list(chosen, page_size=10).page()
    rest = [saga.saga_id async for saga in client.list(chosen, page_size=10, page_token=page.next_page_token)]
    assert [*(saga.saga_id for saga in page.items), *rest] == listed
