"""What the client does when the server is away, overloaded or cut off, against a scripted peer on a real socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from support.scripted_peer import Peer, Refusal, Silence, event, heartbeat, serving, snapshot

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasResponse
from sagad_client import (
    Aborted,
    Backoff,
    Client,
    DeadlineExceeded,
    Internal,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    SagadError,
    Unavailable,
)

QUICK = Backoff(attempts=4, initial_s=0.001, max_s=0.002)
AWAY = Refusal("UNAVAILABLE", "STORE_UNAVAILABLE")
CUT = Refusal("UNAVAILABLE")
STARTED = pb.StartSagaResponse(saga=saga_pb2.Saga(saga_id="s"))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving(Peer()) as peer:
        yield peer


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[Client]:
    async with Client(peer.address, backoff=QUICK, timeout_s=10) as client:
        yield client


async def revisions(client: Client, after_revision: int = 0) -> list[int]:
    return [message.revision async for message in client.watch("s", after_revision)]


async def test_a_start_is_repeated_with_the_same_id_until_it_is_answered(peer: Peer, client: Client) -> None:
    peer.script = deque([AWAY, CUT, STARTED])
    saga = await client.start("order", {"sku": "A-1"}, labels={"k": "v"})
    assert saga.saga_id == "s"
    assert len(peer.requests) == 3
    assert peer.requests[0].saga_id
    assert all(request == peer.requests[0] for request in peer.requests)


async def test_a_call_that_the_server_cancelled_is_repeated(peer: Peer, client: Client) -> None:
    peer.script = deque([Refusal("CANCELLED"), STARTED])
    assert (await client.start("order")).saga_id == "s"
    assert len(peer.requests) == 2


async def test_attempts_are_bounded(peer: Peer, client: Client) -> None:
    peer.script = deque([AWAY] * 10)
    with pytest.raises(Unavailable) as caught:
        await client.get("s")
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert len(peer.requests) == QUICK.attempts


async def test_retry_info_is_obeyed(peer: Peer, client: Client) -> None:
    peer.script = deque([Refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", 0.2), STARTED])
    await client.start("order")
    assert peer.times[1] - peer.times[0] >= 0.2


async def test_what_is_exhausted_for_good_is_not_asked_again(peer: Peer, client: Client) -> None:
    peer.script = deque([Refusal("RESOURCE_EXHAUSTED", "TOO_MANY_DEFINITIONS"), STARTED])
    with pytest.raises(ResourceExhausted):
        await client.start("order")
    assert len(peer.requests) == 1


async def test_no_attempt_starts_that_the_timeout_would_not_let_end(peer: Peer) -> None:
    peer.script = deque([Refusal("UNAVAILABLE", "STORE_UNAVAILABLE", 60.0), STARTED])
    async with Client(peer.address, timeout_s=5) as client:
        async with asyncio.timeout(3):
            with pytest.raises(Unavailable) as caught:
                await client.start("order")
    assert caught.value.retry_after_s == 60.0
    assert len(peer.requests) == 1


async def test_the_timeout_holds_over_all_attempts(peer: Peer) -> None:
    peer.script = deque([AWAY, Silence()])
    async with Client(peer.address, timeout_s=0.2, backoff=QUICK) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get("s")
    assert len(peer.requests) == 2


@pytest.mark.parametrize("code", ["NOT_FOUND", "INVALID_ARGUMENT", "INTERNAL", "UNKNOWN", "FAILED_PRECONDITION"])
async def test_an_answer_is_not_asked_for_again(peer: Peer, client: Client, code: str) -> None:
    peer.script = deque([Refusal(code, "NO"), STARTED])
    with pytest.raises(SagadError) as caught:
        await client.start("order")
    assert caught.value.code is grpc.StatusCode[code]
    assert len(peer.requests) == 1


async def test_a_guarded_call_is_repeated_and_says_that_it_may_have_met_itself(peer: Peer, client: Client) -> None:
    peer.script = deque([CUT, Refusal("ABORTED", "REVISION_MOVED", message="revision is 8")])
    with pytest.raises(Aborted, match="an earlier attempt of this very call got no answer") as caught:
        await client.retry("s", revision=7, reason="fixed")
    assert caught.value.reason == "REVISION_MOVED"
    assert [request.revision for request in peer.requests] == [7, 7]


async def test_a_guarded_call_that_is_refused_at_once_blames_nobody_else(peer: Peer, client: Client) -> None:
    peer.script = deque([Refusal("ABORTED", "REVISION_MOVED", message="revision is 8")])
    with pytest.raises(Aborted) as caught:
        await client.retry("s", revision=7, reason="fixed")
    assert caught.value.message == "revision is 8"


async def test_a_purge_is_made_once_and_a_count_again(peer: Peer, client: Client) -> None:
    peer.script = deque([CUT])
    with pytest.raises(Unavailable):
        await client.admin.purge()
    peer.script = deque([CUT, PurgeSagasResponse(purged=3)])
    assert (await client.admin.purge(dry_run=True)).purged == 3
    assert len(peer.requests) == 3


async def test_pages_are_read_on_from_token_to_token_through_a_fault(peer: Peer, client: Client) -> None:
    def page(token: str, *ids: str) -> pb.ListSagasResponse:
        return pb.ListSagasResponse(sagas=[saga_pb2.Saga(saga_id=i) for i in ids], next_page_token=token)

    peer.script = deque([page("t1", "a", "b"), CUT, page("t2"), page("", "c")])
    assert [saga.saga_id async for saga in client.list(page_size=2)] == ["a", "b", "c"]
    assert [request.page_token for request in peer.requests] == ["", "t1", "t1", "t2"]


async def test_a_wait_is_asked_anew_when_a_slice_of_it_is_over(
    peer: Peer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagad_client.client._WAIT_SLICE_S", 0.1)
    peer.script = deque([Silence(), STARTED])
    assert (await client.start("order", wait=True)).saga_id == "s"
    peer.script = deque([Silence(), Silence(), Silence()])
    with pytest.raises(DeadlineExceeded):
        await client.start("order", wait=True, wait_timeout_s=0.15)
    assert len(peer.requests) == 4


async def test_a_watch_resumes_after_the_last_revision_seen(peer: Peer, client: Client) -> None:
    peer.script = deque([[snapshot(3), event(4), heartbeat(4), CUT], [event(5), AWAY], [heartbeat(5), event(6)]])
    assert await revisions(client) == [3, 4, 5, 6]
    assert [request.after_revision for request in peer.requests] == [0, 4, 5]


async def test_a_watch_that_broke_before_its_snapshot_asks_for_it_again(peer: Peer, client: Client) -> None:
    peer.script = deque([[CUT], [snapshot(1), event(2)]])
    assert await revisions(client) == [1, 2]
    assert [request.after_revision for request in peer.requests] == [0, 0]


async def test_a_watch_from_a_revision_resumes_from_it(peer: Peer, client: Client) -> None:
    peer.script = deque([[CUT], [event(8)]])
    assert await revisions(client, 7) == [8]
    assert [request.after_revision for request in peer.requests] == [7, 7]


async def test_a_watch_gives_up_after_so_many_breaks_without_a_message(peer: Peer, client: Client) -> None:
    peer.script = deque([[CUT], [snapshot(1), CUT], *[[CUT]] * 10])
    messages = client.watch("s")
    assert (await anext(messages)).revision == 1
    with pytest.raises(Unavailable):
        await anext(messages)
    assert len(peer.requests) == 2 + QUICK.attempts - 1


async def test_a_heartbeat_shows_that_a_quiet_watch_is_alive(peer: Peer, client: Client) -> None:
    peer.script = deque([[heartbeat(0), CUT]] * 9 + [[snapshot(1)]])
    assert await revisions(client) == [1]


async def test_a_silent_watch_is_opened_again(peer: Peer) -> None:
    peer.script = deque([[snapshot(1), Silence()], [event(2)]])
    async with Client(peer.address, backoff=QUICK, silence_s=0.1) as client:
        assert await revisions(client) == [1, 2]


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN"])
async def test_a_stream_that_the_network_broke_is_resumed(peer: Peer, client: Client, code: str) -> None:
    peer.script = deque([[snapshot(1), Refusal(code)], [event(2)]])
    assert await revisions(client) == [1, 2]


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal("NOT_FOUND", "SAGA_NOT_FOUND"), NotFound),
        (Refusal("OUT_OF_RANGE", "REVISION_PURGED"), OutOfRange),
        (Refusal("INTERNAL", "INTERNAL"), Internal),
    ],
)
async def test_a_refused_watch_is_not_tried_again(
    peer: Peer, client: Client, refusal: Refusal, kind: type[SagadError]
) -> None:
    peer.script = deque([refusal])
    with pytest.raises(kind):
        await revisions(client)
    assert len(peer.requests) == 1


async def test_a_watch_outlives_its_server() -> None:
    first, second = Peer(deque([[snapshot(1), event(2), Silence()]])), Peer(deque([[event(3)]]))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(first))
        patient = Backoff(attempts=200, max_s=0.05)
        client = await stack.enter_async_context(Client(first.address, backoff=patient))
        messages = client.watch("s")
        assert [(await anext(messages)).revision, (await anext(messages)).revision] == [1, 2]
        await first.stop()
        await stack.enter_async_context(serving(second, first.port))
        assert [message.revision async for message in messages] == [3]
    assert second.requests[0].after_revision == 2


async def test_leaving_a_watch_ends_it_at_the_server(peer: Peer, client: Client) -> None:
    peer.script = deque([[snapshot(1), Silence()]])
    messages = client.watch("s")
    assert (await anext(messages)).revision == 1
    await messages.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(messages)


async def test_waiting_ends_when_the_saga_parks(peer: Peer, client: Client) -> None:
    def got(revision: int, state: Any) -> pb.GetSagaResponse:
        return pb.GetSagaResponse(saga=saga_pb2.Saga(revision=revision, state=state))

    running, parked = saga_pb2.SAGA_STATE_RUNNING, saga_pb2.SAGA_STATE_PARKED
    peer.script = deque([got(1, running), [event(2), CUT], [event(3, parked), Silence()], got(3, parked)])
    assert (await client.wait("s")).state == parked
    assert [getattr(request, "after_revision", None) for request in peer.requests] == [None, 1, 2, None]


async def test_a_wait_that_lapses_says_that_the_saga_goes_on(peer: Peer, client: Client) -> None:
    running = saga_pb2.Saga(revision=1, state=saga_pb2.SAGA_STATE_RUNNING)
    peer.script = deque([pb.GetSagaResponse(saga=running), [Silence()]])
    with pytest.raises(DeadlineExceeded, match="it goes on"):
        await client.wait("s", timeout_s=0.1)


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with Client"):
        await Client().get("s")
