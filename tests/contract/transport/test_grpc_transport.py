"""How calls of participants end, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from support.keeper import Keeper, keeping
from support.scripted_participant import ScriptedParticipant, failure, pending, scripted_participant, success
from support.transport_caller import Caller

from sagad.v1.common_pb2 import StepFailure, StepOutcome
from sagad_server.domain.inputs import Failed, NotSent, Pending, Success
from sagad_server.domain.states import Direction


@pytest.fixture(params=["unary", "session"])
def sessions(request: pytest.FixtureRequest) -> bool:
    """Everything here holds however calls travel."""
    return bool(request.param == "session")


@pytest.fixture
async def peer(sessions: bool) -> AsyncIterator[ScriptedParticipant]:
    async with scripted_participant(sessions=sessions) as participant:
        yield participant


@pytest.fixture
async def caller(peer: ScriptedParticipant) -> AsyncIterator[Caller]:
    caller = Caller(peer.address)
    await caller.until(session=peer.sessions)
    yield caller
    await caller.transport.close()


async def test_an_outcome_is_read_as_it_says(peer: ScriptedParticipant, caller: Caller) -> None:
    peer.script("act", success({"a": 1}), failure("NO_STOCK"), pending())
    first, second, third = await caller.send(), await caller.send(), await caller.send()
    assert isinstance(first, Success)
    assert isinstance(second, Failed)
    assert (second.failure.reason, second.ambiguous, second.retryable) == ("NO_STOCK", False, False)
    assert isinstance(third, Pending)
    assert isinstance(await caller.send(direction=Direction.COMPENSATION), Success)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_code_is_definite_or_ambiguous(
    peer: ScriptedParticipant, caller: Caller, code: grpc.StatusCode
) -> None:
    peer.script("act", code)
    outcome = await caller.send()
    assert isinstance(outcome, Failed)
    definite = {
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
        "OUT_OF_RANGE",
    }
    assert outcome.ambiguous == (code.name not in definite)
    assert outcome.failure.reason == code.name


async def test_an_unset_result_is_a_fault_of_the_participant(peer: ScriptedParticipant, caller: Caller) -> None:
    peer.script("act", StepOutcome())
    outcome = await caller.send()
    assert isinstance(outcome, Failed)
    assert outcome.ambiguous
    assert outcome.retryable
    assert outcome.failure.reason == "INVALID_ANSWER"


async def test_a_nul_in_an_answer_is_refused_at_the_door(peer: ScriptedParticipant, caller: Caller) -> None:
    peer.script("act", success({"text": "a\0b"}), StepOutcome(failure=StepFailure(reason="A\0B", message="c\0d")))
    outcome = await caller.send()
    assert isinstance(outcome, Failed)
    assert outcome.ambiguous
    outcome = await caller.send()
    assert isinstance(outcome, Failed)
    assert (outcome.failure.reason, outcome.failure.message) == ("AB", "cd")


async def test_an_attempt_that_takes_too_long_is_ambiguous(peer: ScriptedParticipant, caller: Caller) -> None:
    held = peer.hold("act")
    outcome = await caller.send(timeout_ms=200)
    held.release()
    assert isinstance(outcome, Failed)
    assert outcome.ambiguous
    assert outcome.failure.reason == "DEADLINE_EXCEEDED"
    remaining = peer.calls[0].remaining_time.ToMilliseconds()
    assert remaining == 200


async def test_nobody_there_is_ambiguous_and_retried() -> None:
    caller = Caller("127.0.0.1:1")
    outcome = await caller.send()
    assert isinstance(outcome, Failed)
    assert outcome.ambiguous
    assert outcome.retryable
    await caller.transport.close()


async def test_a_participant_that_is_not_configured_is_never_called(caller: Caller) -> None:
    assert isinstance(await caller.send("stranger"), NotSent)


async def refused_with(details: bytes) -> Failed:
    """The outcome of a call that ends UNAVAILABLE with these status details."""

    async def refuse(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        trailers = (("grpc-status-details-bin", details),)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "later", trailers)
        return b""

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(refuse)
    service = grpc.method_handlers_generic_handler("sagad.v1.ParticipantService", {"Step": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    caller = Caller(f"127.0.0.1:{port}")
    try:
        async with asyncio.timeout(10):
            outcome = await caller.send()
    finally:
        await caller.transport.close()
        await server.stop(0)
    assert isinstance(outcome, Failed)
    return outcome


async def test_retry_info_is_obeyed() -> None:
    details = status_pb2.Status(code=14)
    details.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3)))
    assert (await refused_with(details.SerializeToString())).retry_after_ms == 3000


@pytest.mark.parametrize("broken", [b"\xff\xff", "of a detail"])
async def test_a_call_is_answered_even_if_its_status_details_cannot_be_read(broken: bytes | str) -> None:
    details = status_pb2.Status(code=14)
    details.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3)))
    details.details[0].value = b"\xff\xff"
    outcome = await refused_with(broken if isinstance(broken, bytes) else details.SerializeToString())
    assert (outcome.ambiguous, outcome.retryable, outcome.retry_after_ms) == (True, True, 0)


async def test_at_most_max_in_flight_calls_are_under_way(sessions: bool) -> None:
    async with keeping(delay_s=0.1, sessions=sessions) as keeper:
        caller = Caller(keeper.address, max_in_flight=3)
        await caller.until(session=sessions)
        calls = [caller.send() for _ in range(10)]
        await _until_called(keeper, 3)
        state = caller.transport.states()["peer"]
        assert (state.in_flight, state.queued) == (3, 7)
        await asyncio.gather(*calls)
        assert keeper.calls == 10
        await caller.transport.close()


async def test_a_drain_ends_what_is_under_way_and_sends_nothing_more(sessions: bool) -> None:
    async with keeping(delay_s=0.3, sessions=sessions) as keeper:
        caller = Caller(keeper.address, max_in_flight=2)
        await caller.until(session=sessions)
        calls = [caller.send() for _ in range(5)]
        await _until_called(keeper, 2)
        await caller.transport.drain()
        outcomes = await asyncio.gather(*calls, caller.send())
        assert [type(outcome) for outcome in outcomes] == [Success, Success, NotSent, NotSent, NotSent, NotSent]
        assert keeper.calls == 2
        await caller.transport.close()


async def test_describe_says_what_is_implemented_or_why_not(caller: Caller, peer: ScriptedParticipant) -> None:
    peer.implement(actions=["act"], compensations=["undo"])
    answer = await caller.transport.describe("peer")
    assert not isinstance(answer, str)
    assert list(answer.actions) == ["act"]
    assert isinstance(await caller.transport.describe("stranger"), str)


async def _until_called(keeper: Keeper, times: int) -> None:
    while keeper.calls < times:
        keeper.called.clear()
        await keeper.called.wait()
