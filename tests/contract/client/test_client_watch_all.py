"""Client.watch_all: many sagas, none of whose events is missing or comes twice, whatever breaks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from support.cutting_proxy import CuttingProxy
from support.recipes import definition, succeeding
from support.scripted_peer import Peer, Refusal, Silence, serving, watched

from sagad.v1 import saga_pb2
from sagad.v1.saga_pb2 import SagaEvent, SagaFilter
from sagad_client import Backoff, Client, OutOfRange, Unavailable

QUICK = Backoff(attempts=4, initial_s=0.001, max_s=0.002)
CUT = Refusal("UNAVAILABLE")
A1, A2, B1 = SagaEvent(saga_id="a", revision=1), SagaEvent(saga_id="a", revision=2), SagaEvent(saga_id="b", revision=1)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving(Peer()) as peer:
        yield peer


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[Client]:
    async with Client(peer.address, backoff=QUICK, timeout_s=10, namespace="shop") as client:
        yield client


async def test_events_come_one_by_one_with_their_tokens_and_heartbeats_do_not(peer: Peer, client: Client) -> None:
    peer.script = deque([[watched(token="0"), watched(A1, B1, token="2"), watched(token="2"), watched(A2, token="3")]])
    selection = SagaFilter(labels={"region": "north"})
    seen = [(one.event, one.resume_token) async for one in client.watch_all(selection, resume_token="old")]
    assert seen == [(A1, "2/1"), (B1, "2"), (A2, "3")]
    (request,) = peer.requests
    assert (request.namespace, request.filter, request.resume_token) == ("shop", selection, "old")


async def test_heartbeats_are_passed_on_where_that_is_asked_for(peer: Peer, client: Client) -> None:
    peer.script = deque([[watched(token="0"), watched(A1, token="1"), watched(token="1")]])
    seen = [one async for one in client.watch_all(heartbeats=True)]
    assert [(one.HasField("event"), one.resume_token) for one in seen] == [(False, "0"), (True, "1"), (False, "1")]


async def test_a_broken_watch_is_resumed_behind_the_last_message_seen(peer: Peer, client: Client) -> None:
    peer.script = deque(
        [
            [CUT],
            [watched(token="0"), CUT],
            [watched(A1, B1, token="2"), Refusal("INTERNAL")],
            [watched(token="9"), Refusal("UNAVAILABLE", "DRAINING", retry_after_s=0.001)],
            [watched(A2, token="10")],
        ]
    )
    assert [one.event async for one in client.watch_all()] == [A1, B1, A2]
    assert [request.resume_token for request in peer.requests] == ["", "", "0", "2", "9"]


async def test_a_silent_watch_is_opened_again(peer: Peer) -> None:
    peer.script = deque([[watched(A1, token="1"), Silence()], [watched(A2, token="2")]])
    async with Client(peer.address, backoff=QUICK, silence_s=0.1) as client:
        assert [one.event async for one in client.watch_all()] == [A1, A2]
    assert peer.requests[1].resume_token == "1"


async def test_a_watch_gives_up_after_so_many_breaks_without_a_message(peer: Peer, client: Client) -> None:
    peer.script = deque([[watched(A1, token="1"), CUT], *[[CUT]] * 10])
    with pytest.raises(Unavailable):
        assert [one.event async for one in client.watch_all()] == []
    assert len(peer.requests) == QUICK.attempts


async def test_what_is_purged_is_told_and_not_tried_again(peer: Peer, client: Client) -> None:
    peer.script = deque([Refusal("OUT_OF_RANGE", "JOURNAL_PURGED")])
    with pytest.raises(OutOfRange):
        await anext(client.watch_all(resume_token="old"))
    assert len(peer.requests) == 1


async def test_leaving_a_watch_ends_it_at_the_server(sagad: Any) -> None:
    async with Client(sagad.address) as client:
        events = client.watch_all(heartbeats=True)
        await anext(events)
        assert sagad.engine.watches.count == 1
        await events.aclose()
        async with asyncio.timeout(5):
            while sagad.engine.watches.count:  # noqa: ASYNC110 - nobody tells when gRPC has seen a client leave
                await asyncio.sleep(0.01)


async def test_a_watch_that_is_cut_off_again_and_again_misses_nothing(sagad: Any) -> None:
    sagas = [f"s{number}" for number in range(100)]
    backoff = Backoff(attempts=100, initial_s=0.01, max_s=0.05)
    async with (
        CuttingProxy(sagad.address, after_bytes=20_000) as proxy,
        Client(sagad.address) as client,
        Client(proxy.address, backoff=backoff) as cut_off,
        aclosing(cut_off.watch_all(SagaFilter(definition_id="order"), heartbeats=True)) as events,
    ):
        await client.definitions.create(definition(succeeding("order")))
        assert not (await anext(events)).HasField("event")
        starting = [asyncio.create_task(client.start("order", saga_id=saga, wait=True)) for saga in sagas]
        seen: dict[str, list[int]] = {saga: [] for saga in sagas}
        ended = 0
        while ended < len(sagas):
            event = (await anext(events)).event
            if event.saga_id:
                seen[event.saga_id].append(event.revision)
                ended += event.state == saga_pb2.SAGA_STATE_SUCCEEDED
        await asyncio.gather(*starting)
    assert all(revisions == [1, 2, 3] for revisions in seen.values())
    assert proxy.cuts > 0


async def test_a_list_after_the_first_heartbeat_and_what_follows_leave_no_gap(sagad: Any) -> None:
    async with Client(sagad.address) as client, aclosing(client.watch_all(heartbeats=True)) as events:
        await client.definitions.create(definition(succeeding("order")))
        await anext(events)
        starting = [asyncio.create_task(client.start("order", saga_id=f"s{n}", wait=True)) for n in range(20)]
        known = {saga.saga_id: saga.revision async for saga in client.list()}
        while list(known.values()).count(3) < len(starting):
            event = (await anext(events)).event
            if event.revision > known.get(event.saga_id, 0):
                assert event.revision == known.get(event.saga_id, 0) + 1
                known[event.saga_id] = event.revision
        await asyncio.gather(*starting)
