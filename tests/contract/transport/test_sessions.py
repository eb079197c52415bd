"""How a session is found, used, lost and found again, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.scripted_participant import ScriptedParticipant, scripted_participant, success
from support.session_servicer import Stream
from support.transport_caller import Caller

from sagad.v1 import participant_service_pb2 as pb
from sagad_server.domain.inputs import Failed, Outcome, Success
from sagad_server.domain.states import Direction
from sagad_server.transport.breaker import THRESHOLD, BreakerState


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedParticipant]:
    async with scripted_participant(sessions=True) as participant:
        yield participant


@pytest.fixture
async def caller(peer: ScriptedParticipant) -> AsyncIterator[Caller]:
    caller = Caller(peer.address)
    await caller.until(session=True)
    yield caller
    await caller.transport.close()


async def ignore(stream: Stream, call: pb.SessionCall) -> None:
    """Leaves a call open."""


def ambiguous(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed)
    assert outcome.ambiguous
    return outcome.code


async def test_calls_that_are_ready_together_travel_together(peer: ScriptedParticipant, caller: Caller) -> None:
    calls = [caller.send() for _ in range(50)] + [caller.send(direction=Direction.COMPENSATION) for _ in range(50)]
    assert all(isinstance(outcome, Success) for outcome in await asyncio.gather(*calls))
    (stream,) = peer.streams
    assert len(stream.frames) == 1
    assert dict(stream.calls[0].metadata) == {"tenant": "acme"}


async def test_a_call_too_long_for_a_frame_is_an_rpc_of_its_own(peer: ScriptedParticipant, caller: Caller) -> None:
    assert isinstance(await caller.send(size=256 * 1024), Success)
    assert len(peer.calls) == 1
    assert peer.streams[0].calls == []


async def test_a_broken_session_is_ambiguous_for_what_was_handed_over_and_another_one_is_opened(
    peer: ScriptedParticipant, caller: Caller
) -> None:
    respond, peer.respond = peer.respond, ignore
    calls = [caller.send() for _ in range(3)]
    await peer.handed_over(3)
    peer.respond = respond
    peer.streams[0].end()
    assert {ambiguous(outcome) for outcome in await asyncio.gather(*calls)} == {"UNAVAILABLE"}
    assert isinstance(await caller.send(), Success)
    await caller.until(session=True)
    assert isinstance(await caller.send(), Success)
    assert len(peer.streams) == 2


async def test_a_call_whose_time_is_over_is_ambiguous_and_its_late_answer_dropped(
    peer: ScriptedParticipant, caller: Caller
) -> None:
    peer.respond = ignore
    call = caller.send(timeout_ms=100)
    await peer.handed_over(1)
    assert ambiguous(await call) == "DEADLINE_EXCEEDED"
    other = caller.send()
    await peer.handed_over(2)
    late, answered = peer.streams[0].calls
    done = [pb.SessionAnswer(call_id=each.call_id, outcome=success()) for each in (late, answered)]
    peer.streams[0].answer(*done)
    assert isinstance(await other, Success)


async def test_a_participant_that_closes_a_session_ends_what_it_has_and_gets_nothing_more_there(
    peer: ScriptedParticipant, caller: Caller
) -> None:
    peer.respond = ignore
    call = caller.send()
    await peer.handed_over(1)
    stream = peer.streams[0]
    stream.answer(closing=True)
    await caller.until(session=False)
    assert isinstance(await caller.send(), Success)  # by an RPC
    assert not stream.ended.is_set()
    stream.answer(pb.SessionAnswer(call_id=stream.calls[0].call_id, outcome=success()))
    assert isinstance(await call, Success)
    async with asyncio.timeout(10):
        await stream.ended.wait()


async def test_a_session_that_cannot_be_opened_is_done_without(peer: ScriptedParticipant) -> None:
    class Liar(ScriptedParticipant):
        async def Describe(self, request: pb.DescribeRequest, context: object) -> pb.DescribeResponse:
            return pb.DescribeResponse(sessions=True)

    async with scripted_participant(participant=Liar()) as liar:
        caller = Caller(liar.address)
        assert isinstance(await caller.send(), Success)
        await caller.transport.close()


async def test_a_cancellation_that_grpc_swallows_keeps_no_link_open(peer: ScriptedParticipant) -> None:
    caller = Caller(peer.address)
    link = caller.transport._links["peer"]
    asked, swallowed = asyncio.Event(), list[bool]()

    async def describe() -> pb.DescribeResponse:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as gRPC does where the answer comes at the same time
            if swallowed:
                raise
            swallowed.append(True)
        return pb.DescribeResponse()

    link._describe = describe  # type: ignore[method-assign]
    link._look_again.set()
    await asked.wait()
    async with asyncio.timeout(20):
        await caller.transport.close()
    assert swallowed


async def test_an_upgraded_and_a_downgraded_participant_is_found(peer: ScriptedParticipant) -> None:
    peer.sessions = False
    caller = Caller(peer.address)
    assert isinstance(await caller.send(), Success)
    peer.sessions = True
    await caller.until(session=True)
    peer.sessions = False
    peer.streams[0].end()
    await caller.until(session=False)
    assert isinstance(await caller.send(), Success)
    await caller.transport.close()


@pytest.mark.parametrize("sessions", [False, True])
async def test_a_participant_that_comes_back_is_called_within_two_seconds(sessions: bool) -> None:
    async with scripted_participant(sessions=sessions) as peer:
        caller = Caller(peer.address)
        await caller.until(session=sessions)
    failed = await asyncio.gather(*(caller.send() for _ in range(2 * THRESHOLD)))
    assert all(isinstance(outcome, Failed) for outcome in failed)
    assert caller.transport.states()["peer"].breaker is BreakerState.OPEN
    held = [caller.send() for _ in range(3)]
    async with scripted_participant(sessions=sessions, address=peer.address):
        async with asyncio.timeout(4):  # twice the promise: the machine may be busy
            outcomes = await asyncio.gather(*held)
        assert all(isinstance(outcome, Success) for outcome in outcomes)
        assert caller.transport.states()["peer"].breaker is BreakerState.CLOSED
        await caller.until(session=sessions)
        await caller.transport.close()


async def test_a_node_that_stops_answers_what_is_open(peer: ScriptedParticipant, caller: Caller) -> None:
    peer.respond = ignore
    call = caller.send()
    await peer.handed_over(1)
    await caller.transport.close()
    assert ambiguous(await call) == "UNAVAILABLE"
