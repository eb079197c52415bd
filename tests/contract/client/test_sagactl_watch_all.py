"""sagactl watch without a saga: lines in a pipe, a live table in a terminal."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.recipes import definition, succeeding
from support.sagactl import Sagactl
from support.scripted_peer import Peer, Refusal, serving, watched

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.saga_pb2 import SagaEvent
from sagad_client import Client

RUNNING, SUCCEEDED = saga_pb2.SAGA_STATE_RUNNING, saga_pb2.SAGA_STATE_SUCCEEDED
A1 = SagaEvent(saga_id="a", revision=1, state=RUNNING)
A2 = SagaEvent(saga_id="a", revision=2, state=SUCCEEDED)
B1 = SagaEvent(saga_id="b", revision=1, state=RUNNING)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving(Peer()) as peer:
        yield peer


@pytest.fixture
def sagactl(peer: Peer) -> Sagactl:
    return Sagactl(peer.address)


async def test_in_a_pipe_it_is_one_line_an_event(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque(
        [[watched(token="0"), watched(A1, B1, token="1"), Refusal("UNAVAILABLE")], [watched(A2, token="2")]]
    )
    result = await sagactl("watch")
    assert [(line[0], line[1], line[3]) for line in result.lines] == [
        ("a", "1", "RUNNING"),
        ("b", "1", "RUNNING"),
        ("a", "2", "SUCCEEDED"),
    ]


async def test_as_json_it_is_one_object_a_line_with_the_token_to_resume_by(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([[watched(token="0"), watched(A1, B1, token="1")]])
    result = await sagactl("watch", "-o", "json", "--resume", "old", "--state", "running", "--label", "x=1")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["event"]["sagaId"], line["resumeToken"]) for line in lines] == [("a", "1/1"), ("b", "1")]
    (request,) = peer.requests
    assert (request.resume_token, list(request.filter.states)) == ("old", [RUNNING])
    assert dict(request.filter.labels) == {"x": "1"}


async def test_in_a_terminal_it_is_a_live_table_of_what_there_is_and_what_follows(peer: Peer, sagactl: Sagactl) -> None:
    there = pb.ListSagasResponse(sagas=[saga_pb2.Saga(saga_id="there", revision=1, state=RUNNING)])
    peer.script = deque([[watched(token="0"), watched(A1, token="1"), watched(A2, token="2")], there])
    result = await sagactl.in_terminal("watch", "--definition", "order", "--state", "running", "--state", "succeeded")
    assert "\x1b[" in result.out
    for shown in ("SAGA", "there", "SUCCEEDED", "2 events; 2 sagas shown, 1 of them not ended"):
        assert shown in result.out
    stream, listing = peer.requests
    assert stream.filter == saga_pb2.SagaFilter(definition_id="order"), "the table sees what leaves these states"
    assert listing.filter == saga_pb2.SagaFilter(definition_id="order", states=[RUNNING, SUCCEEDED])


async def test_a_place_that_is_purged_is_told_with_the_next_move(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([Refusal("OUT_OF_RANGE", "JOURNAL_PURGED")])
    result = await sagactl("watch", "--resume", "old")
    assert result.code == 1
    assert "Next: leave --resume out" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["watch", "--after", "3"], "--after and --stay are for the watch of one saga"),
        (["watch", "--stay"], "--after and --stay are for the watch of one saga"),
        (["watch", "s", "--resume", "x"], "--resume and filters are for the watch of many sagas"),
        (["watch", "s", "--state", "parked"], "--resume and filters are for the watch of many sagas"),
        (["watch", "--label", "x"], "must be key=value"),
    ],
)
async def test_what_does_not_fit_together_ends_with_2_and_asks_nobody(
    peer: Peer, sagactl: Sagactl, arguments: list[str], message: str
) -> None:
    result = await sagactl(*arguments)
    assert (result.code, result.out, peer.requests) == (2, "", [])
    assert message in result.err


async def test_a_real_watch_goes_on_until_it_is_interrupted(sagad: Any) -> None:
    sagactl = Sagactl(sagad.address)
    process = await sagactl.spawn("watch", "--definition", "order")
    assert process.stdout is not None
    async with Client(sagad.address) as client:
        await client.definitions.create(definition(succeeding("order")))
        async with asyncio.timeout(30):
            while sagad.engine.watches.count == 0:  # noqa: ASYNC110 - nobody tells when another process has begun
                await asyncio.sleep(0.02)
        for saga in ("a", "b"):
            await client.start("order", saga_id=saga, wait=True)
    lines = [(await process.stdout.readline()).decode().split("\t") for _ in range(6)]
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert errors == b""
    assert [(line[0], line[1]) for line in lines] == [(saga, str(n)) for saga in "ab" for n in (1, 2, 3)]
