"""Handlers that take many calls at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from support.barrier_worlds import PostgresWorld, World, step, undo

from sagad.v1 import participant_service_pb2 as pb
from sagad_participant import Action, Compensation, Fenced, HandlerFailed, Participant, Pending, Refused
from sagad_participant.batches import BatchCall, run_batch
from sagad_participant.payloads import json_of
from sagad_participant.postgres import PostgresBarrier, keep_session
from sagad_participant.sessions import Session


class Handlers:
    """Batch handlers whose runs are counted, and whose answers a test chooses by the number of the call."""

    def __init__(self, world: World, tested: Participant) -> None:
        self.world = world
        self.tested = tested
        self.runs: list[int] = []
        self.undone: list[Sequence[Compensation]] = []
        self.answers: dict[str, Any] = {}
        tested.action_batch("act")(self.act)
        tested.compensation_batch("undo")(self.undo)

    async def act(self, calls: Sequence[Action]) -> list[Any]:
        self.runs.append(len(calls))
        given = [self.answers.get(call.idempotency_key, {"key": call.idempotency_key}) for call in calls]
        for call, answer in zip(calls, given, strict=True):
            if isinstance(answer, ZeroDivisionError):
                raise answer
            if not isinstance(answer, Refused):
                await self.world.effect(call.connection, call.idempotency_key)
        return given

    async def undo(self, calls: Sequence[Compensation]) -> list[Any]:
        self.undone.append(calls)
        for call in calls:
            await self.world.effect(call.connection, f"undo {call.idempotency_key}")
        return [self.answers.get(f"undo {call.idempotency_key}") for call in calls]

    async def run(self, *requests: pb.StepRequest | pb.CompensateRequest) -> list[Any]:
        return await run_batch(self.tested, [BatchCall(request, {}, None) for request in requests])


@pytest.fixture
def handlers(world: World, tested: Participant) -> Handlers:
    return Handlers(world, tested)


def keys(requests: Sequence[pb.StepRequest]) -> list[str]:
    return sorted(request.idempotency_key for request in requests)


async def test_each_call_of_a_batch_has_its_effect_and_its_own_answer_once(handlers: Handlers) -> None:
    requests = [step() for _ in range(64)]
    outcomes = await handlers.run(*requests)
    assert [json_of(one.success.output, "output")["key"] for one in outcomes] == [r.idempotency_key for r in requests]
    runs = len(handlers.runs)
    assert await handlers.run(*requests) == outcomes, "the same calls again get the same answers"
    assert sorted(await handlers.world.effects()) == keys(requests)
    assert len(handlers.runs) == runs


async def test_a_batch_costs_two_statements_beside_those_of_its_handler(
    postgres_world: PostgresWorld, postgres_dsn: str
) -> None:
    tested = Participant("tested", barrier=postgres_world.barrier)

    @tested.action_batch("act")
    async def act(calls: Sequence[Action]) -> list[None]:
        texts = [call.idempotency_key for call in calls]
        await calls[0].connection.execute("INSERT INTO effect (text) SELECT unnest($1::text[])", texts)
        return [None] * len(calls)

    async def run(calls: int) -> list[Any]:
        return await run_batch(tested, [BatchCall(step(), {}, None) for _ in range(calls)])

    statements: list[str] = []
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=1, reset=keep_session) as pool:
        tested.barrier = PostgresBarrier(pool)
        await run(2)  # the connection has learned the types
        async with pool.acquire() as connection:
            connection.add_query_logger(lambda query: statements.append(query.query))
        outcomes = await run(64)
    assert all(one.HasField("success") for one in outcomes)
    assert len(await postgres_world.effects()) == 66
    assert [query.split()[0].strip(";") for query in statements] == ["BEGIN", "INSERT", "INSERT", "UPDATE", "COMMIT"]


async def test_a_refusal_is_final_and_the_rest_of_its_batch_is_done(handlers: Handlers) -> None:
    good, bad, other = (step() for _ in range(3))
    handlers.answers[bad.idempotency_key] = Refused("NO_FUNDS", "the account is empty")
    outcomes = await handlers.run(good, bad, other)
    assert [one.WhichOneof("result") for one in outcomes] == ["success", "failure", "success"]
    assert outcomes[1].failure.never_executed
    handlers.answers.clear()
    assert (await handlers.run(bad, step()))[0] == outcomes[1]
    assert set(keys([good, other])) <= set(await handlers.world.effects())
    assert bad.idempotency_key not in await handlers.world.effects()


async def test_a_retryable_refusal_is_not_remembered_and_the_rest_is_done(handlers: Handlers) -> None:
    good, later = step(), step()
    handlers.answers[later.idempotency_key] = Refused("BUSY", retryable=True)
    outcomes = await handlers.run(good, later)
    assert outcomes[0].HasField("success")
    assert outcomes[1].failure.retryable
    handlers.answers.clear()
    assert (await handlers.run(later, step()))[0].HasField("success")
    assert (await handlers.world.effects()).count(good.idempotency_key) == 1


async def test_a_call_on_which_the_handler_fails_fails_alone(handlers: Handlers) -> None:
    good, bad, other = (step() for _ in range(3))
    handlers.answers[bad.idempotency_key] = ZeroDivisionError("a bug")
    outcomes = await handlers.run(good, bad, other)
    assert outcomes[0].HasField("success")
    assert isinstance(outcomes[1], HandlerFailed)
    assert outcomes[2].HasField("success")
    assert sorted(await handlers.world.effects()) == keys([good, other])


async def test_pending_work_of_a_batch_is_there_for_workers(handlers: Handlers) -> None:
    now, later = step(), step()
    handlers.answers[later.idempotency_key] = Pending
    outcomes = await handlers.run(now, later)
    assert [one.WhichOneof("result") for one in outcomes] == ["success", "pending"]
    assert [work.idempotency_key for work in await handlers.world.barrier.pending()] == [later.idempotency_key]


async def test_a_call_of_an_older_owner_fails_alone(handlers: Handlers) -> None:
    taken = step(token=5)
    await handlers.run(taken, step())
    old = step(key=taken.idempotency_key, token=4)
    outcomes = await handlers.run(old, step())
    assert isinstance(outcomes[0], Fenced)
    assert outcomes[1].HasField("success")


async def test_compensations_in_a_batch_are_what_they_are_alone(handlers: Handlers) -> None:
    done, never, pending = (step() for _ in range(3))
    handlers.answers[pending.idempotency_key] = Pending
    await handlers.run(done, pending)
    outcomes = await handlers.run(undo(done), undo(never), undo(pending))
    assert all(one.HasField("success") for one in outcomes)
    undone = {call.idempotency_key: call.was_pending for calls in handlers.undone for call in calls}
    assert undone == {done.idempotency_key: False, pending.idempotency_key: True}
    late = await handlers.run(never, step())
    assert late[0].failure.reason == "ALREADY_COMPENSATED"
    assert late[0].failure.never_executed
    effects = await handlers.world.effects()
    assert await handlers.run(undo(done), undo(never), undo(pending)) == outcomes
    assert await handlers.world.effects() == effects


async def test_a_refused_compensation_is_not_remembered_and_the_rest_is_done(handlers: Handlers) -> None:
    one, other = step(), step()
    await handlers.run(one, other)
    handlers.answers[f"undo {one.idempotency_key}"] = Refused("ASK_A_PERSON")
    outcomes = await handlers.run(undo(one), undo(other))
    assert [outcome.WhichOneof("result") for outcome in outcomes] == ["failure", "success"]
    handlers.answers.clear()
    assert (await handlers.run(undo(one), undo(other)))[0].HasField("success")
    assert (await handlers.world.effects()).count(f"undo {one.idempotency_key}") == 1


async def test_a_batch_handler_that_loses_a_result_answers_none(world: World, tested: Participant) -> None:
    async def act(calls: Sequence[Action]) -> list[None]:
        return [None] * (len(calls) + 1)

    tested.action_batch("act")(act)
    requests = [step(), step()]
    outcomes = await run_batch(tested, [BatchCall(request, {}, None) for request in requests])
    assert all(isinstance(one, Exception) and "results" in str(one) for one in outcomes)


async def test_a_session_brings_what_waits_together_but_never_a_key_twice(handlers: Handlers) -> None:
    once, twice = step(), step()
    frame = pb.SessionRequest()
    for call_id, request in enumerate((once, twice, twice, step(), step()), start=1):
        frame.calls.add(call_id=call_id, step=request)
    frame.calls.add(call_id=6, compensate=undo(once))
    answers: dict[int, pb.SessionAnswer] = {}

    async def write(response: pb.SessionResponse) -> None:
        answers.update({answer.call_id: answer for answer in response.answers})

    async def requests() -> AsyncIterator[pb.SessionRequest]:
        yield frame

    async with asyncio.timeout(30):
        await Session(handlers.tested, write, 100).serve(requests())
    assert sorted(answers) == [1, 2, 3, 4, 5, 6]
    assert answers[2].outcome == answers[3].outcome
    assert (await handlers.world.effects()).count(twice.idempotency_key) == 1
    if isinstance(handlers.world, PostgresWorld):
        assert max(handlers.runs) > 1
    undone = answers[6].outcome.HasField("success")
    assert undone
    acted = answers[1].outcome.HasField("success")
    assert (once.idempotency_key in await handlers.world.effects()) is acted, "done and undone, or neither"
