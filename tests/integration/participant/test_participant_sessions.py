"""The SDK's sessions, called as sagad calls them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.barrier_worlds import World
from support.transport_caller import Caller

from sagad_participant import Action, Participant, RunningServer, start
from sagad_participant.errors import Unavailable
from sagad_server.domain.inputs import Failed, NotSent, Outcome, Success
from sagad_server.domain.states import Direction


@pytest_asyncio.fixture
async def server(world: World, tested: Participant) -> AsyncIterator[RunningServer]:
    running = await start(tested, max_concurrency=4)
    yield running
    await running.stop(0)


@pytest_asyncio.fixture
async def caller(server: RunningServer) -> AsyncIterator[Caller]:
    caller = Caller(server.address)
    await caller.until(session=True)
    yield caller
    await caller.transport.close()


def code(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed)
    return outcome.code


async def test_handlers_run_side_by_side_within_the_bound(tested: Participant, caller: Caller) -> None:
    running, most = 0, 0
    full = asyncio.Event()

    @tested.action("act")
    async def act(call: Action) -> None:
        nonlocal running, most
        assert call.metadata == {"tenant": "acme"}
        running += 1
        most = max(most, running)
        if running == 4:
            full.set()
        await full.wait()
        running -= 1

    outcomes = await asyncio.gather(*(caller.send(key=f"k{number}") for number in range(12)))
    assert all(isinstance(outcome, Success) for outcome in outcomes)
    assert most == 4


async def test_failures_have_the_status_that_an_rpc_would_have(tested: Participant, caller: Caller) -> None:
    assert code(await caller.send(key="k")) == "UNIMPLEMENTED"

    @tested.action("act")
    async def act(call: Action) -> None:
        raise RuntimeError("secret")

    assert code(await caller.send(key="k")) == "UNKNOWN"
    assert code(await caller.send(key="")) == "INVALID_ARGUMENT"


async def test_the_pause_that_a_participant_asks_for_reaches_sagad(tested: Participant, caller: Caller) -> None:
    @tested.action("act")
    async def act(call: Action) -> None:
        raise Unavailable("come back", retry_after_s=7.5)

    outcome = await caller.send(key="k")
    assert isinstance(outcome, Failed)
    assert outcome.retry_after_ms == 7_500


async def test_a_repeated_call_has_its_effect_once(world: World, tested: Participant, caller: Caller) -> None:
    @tested.action("act")
    async def act(call: Action) -> None:
        await world.effect(call.connection, "act")

    outcomes = await asyncio.gather(*(caller.send(key="same") for _ in range(4)))
    assert all(isinstance(outcome, Success) for outcome in outcomes)
    assert await world.effects() == ["act"]


async def test_a_compensation_that_comes_first_succeeds_and_its_action_is_refused(
    world: World, tested: Participant, caller: Caller
) -> None:
    @tested.action("act")
    async def act(call: Action) -> None:
        await world.effect(call.connection, "act")

    @tested.compensation("undo")
    async def undo(call: object) -> None:
        raise AssertionError("there is nothing to undo")

    assert isinstance(await caller.send(key="k", direction=Direction.COMPENSATION), Success)
    outcome = await caller.send(key="k")
    assert isinstance(outcome, Failed)
    assert outcome.never_executed
    assert await world.effects() == []


async def test_stop_answers_what_is_under_way_and_ends_the_session(
    tested: Participant, server: RunningServer, caller: Caller
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @tested.action("act")
    async def act(call: Action) -> None:
        started.set()
        await go.wait()

    call = caller.send(key="k")
    await started.wait()
    stopping = asyncio.create_task(server.stop(10))
    await caller.until(session=False)
    go.set()
    assert isinstance(await call, Success)
    async with asyncio.timeout(5):  # the grace is longer: the session has ended by itself
        await stopping


@pytest.mark.parametrize("end", ["timed out", "broken"])
async def test_a_call_that_is_given_up_is_rolled_back(
    world: World, tested: Participant, caller: Caller, end: str
) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    @tested.action("act")
    async def act(call: Action) -> None:
        await world.effect(call.connection, "act")
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    call = caller.send(key="k", timeout_ms=300 if end == "timed out" else 20_000)
    await started.wait()
    if end == "broken":
        await caller.transport.close()
    outcome = await call
    assert not isinstance(outcome, Success | NotSent)
    async with asyncio.timeout(10):
        await ended.wait()
    assert await world.effects() == []
