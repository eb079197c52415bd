"""What every barrier promises, shown on all of them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from support.barrier_worlds import World, step, undo

from sagad.v1 import participant_service_pb2 as pb
from sagad_participant import (
    UNKNOWN,
    Action,
    AlreadyCompleted,
    BadAnswer,
    Compensation,
    DeadlinePassed,
    Fenced,
    HandlerFailed,
    InvalidCall,
    Kind,
    Participant,
    Pending,
    PendingClosed,
    Refused,
    Unavailable,
    UnknownHandler,
    UnknownWork,
    run_action,
    run_compensation,
)
from sagad_participant.payloads import json_of, payload_of


class Handlers:
    """An action and a compensation whose runs are counted, and whose answers a test chooses."""

    def __init__(self, world: World, tested: Participant) -> None:
        self.world = world
        self.tested = tested
        self.answer: Any = None
        self.undo_answer: Any = None
        self.runs = 0
        self.undone: list[Compensation] = []
        self.before_answer = asyncio.Event()
        self.before_answer.set()
        self.started = asyncio.Event()
        tested.action("act")(self.act)
        tested.compensation("undo")(self.undo)

    async def act(self, call: Action) -> Any:
        self.runs += 1
        await self.world.effect(call.connection, "act")
        self.started.set()
        await self.before_answer.wait()
        return _given(self.answer)

    async def undo(self, call: Compensation) -> Any:
        self.undone.append(call)
        await self.world.effect(call.connection, "undo")
        return _given(self.undo_answer)

    async def step(self, request: pb.StepRequest) -> Any:
        return await run_action(self.tested, request)

    async def compensate(self, request: pb.CompensateRequest) -> Any:
        return await run_compensation(self.tested, request)


def _given(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def handlers(world: World, tested: Participant) -> Handlers:
    return Handlers(world, tested)


async def test_an_action_has_its_effect_and_answers_its_output(handlers: Handlers) -> None:
    handlers.answer = {"charge_id": "c-1", "cents": 1999, "parts": [1.5, True, None]}
    outcome = await handlers.step(step())
    assert json_of(outcome.success.output, "output") == handlers.answer
    assert await handlers.world.effects() == ["act"]


@pytest.mark.parametrize("answer", [None, {"n": 1}, b"\x00bytes"])
async def test_a_repeated_action_gets_the_same_answer_and_runs_nothing(handlers: Handlers, answer: Any) -> None:
    handlers.answer = answer
    request = step()
    first = await handlers.step(request)
    handlers.answer = {"another": "answer"}
    assert await handlers.step(request) == first
    assert await handlers.world.effects() == ["act"]
    assert handlers.runs == 1


async def test_a_concurrent_duplicate_waits_and_gets_the_same_answer(handlers: Handlers) -> None:
    handlers.answer = {"n": 1}
    handlers.before_answer.clear()
    request = step()
    first = asyncio.create_task(handlers.step(request))
    await handlers.started.wait()
    second = asyncio.create_task(handlers.step(request))
    await handlers.world.until_a_call_waits()
    handlers.before_answer.set()
    assert await second == await first
    assert await handlers.world.effects() == ["act"]
    assert handlers.runs == 1


async def test_a_concurrent_duplicate_runs_the_handler_if_the_first_fails(handlers: Handlers) -> None:
    handlers.before_answer.clear()
    request = step()
    first = asyncio.create_task(handlers.step(request))
    await handlers.started.wait()
    second = asyncio.create_task(handlers.step(request))
    await handlers.world.until_a_call_waits()
    first.cancel()
    await asyncio.wait([first])
    handlers.before_answer.set()
    assert (await second).HasField("success")
    with pytest.raises(asyncio.CancelledError):
        await first
    assert handlers.runs == 2
    assert await handlers.world.effects() == ["act"]


async def test_the_wait_for_a_concurrent_duplicate_is_bounded(handlers: Handlers) -> None:
    handlers.before_answer.clear()
    request = step()
    first = asyncio.create_task(handlers.step(request))
    await handlers.started.wait()
    with pytest.raises(Unavailable, match="another call with this key"):
        await handlers.step(request)
    handlers.before_answer.set()
    assert (await first).HasField("success")


async def test_a_compensation_runs_once_and_knows_input_output_and_cause(handlers: Handlers) -> None:
    handlers.answer = {"charge_id": "c-1"}
    request = step()
    await handlers.step(request)
    first = await handlers.compensate(undo(request))
    assert await handlers.compensate(undo(request)) == first
    assert first.HasField("success")
    assert await handlers.world.effects() == ["act", "undo"]
    (call,) = handlers.undone
    assert call.json == {"order_id": "o-1"}
    assert call.output == {"charge_id": "c-1"}
    assert not call.was_pending
    assert (call.cause.category, call.cause.reason, call.cause.step_id) == ("BUSINESS", "NO_STOCK", "other")


async def test_a_compensation_of_an_action_never_seen_succeeds_and_runs_nothing(handlers: Handlers) -> None:
    request = step()
    for _ in range(2):
        assert (await handlers.compensate(undo(request))).HasField("success")
    assert handlers.undone == []


async def test_an_action_after_its_compensation_is_refused_as_never_executed(handlers: Handlers) -> None:
    request = step()
    await handlers.compensate(undo(request))
    for _ in range(2):
        outcome = await handlers.step(request)
        assert outcome.failure.reason == "ALREADY_COMPENSATED"
        assert outcome.failure.never_executed
        assert not outcome.failure.retryable
    assert handlers.runs == 0


async def test_a_late_duplicate_of_a_compensated_action_has_no_effect(handlers: Handlers) -> None:
    request = step()
    await handlers.step(request)
    await handlers.compensate(undo(request))
    await handlers.step(request)
    assert await handlers.world.effects() == ["act", "undo"]


async def test_a_compensation_waits_for_its_action_in_flight_and_then_undoes_it(handlers: Handlers) -> None:
    handlers.before_answer.clear()
    request = step()
    acting = asyncio.create_task(handlers.step(request))
    await handlers.started.wait()
    undoing = asyncio.create_task(handlers.compensate(undo(request)))
    await handlers.world.until_a_call_waits()
    handlers.before_answer.set()
    assert (await acting).HasField("success")
    assert (await undoing).HasField("success")
    assert await handlers.world.effects() == ["act", "undo"]


async def test_a_success_known_only_to_the_coordinator_is_undone(handlers: Handlers) -> None:
    request = step()
    output = payload_of({"charge_id": "c-1"})
    outcome = await handlers.compensate(undo(request, outcome=pb.ACTION_OUTCOME_SUCCEEDED, output=output))
    assert outcome.HasField("success")
    assert handlers.undone[0].output == {"charge_id": "c-1"}
    assert (await handlers.step(request)).success.output == output
    assert handlers.runs == 0


async def test_a_failed_compensation_is_rolled_back_and_runs_again(handlers: Handlers) -> None:
    request = step()
    await handlers.step(request)
    handlers.undo_answer = RuntimeError("boom")
    with pytest.raises(HandlerFailed):
        await handlers.compensate(undo(request))
    handlers.undo_answer = None
    assert (await handlers.compensate(undo(request))).HasField("success")
    assert await handlers.world.effects() == ["act", "undo"]


async def test_a_refused_compensation_is_rolled_back_and_not_remembered(handlers: Handlers) -> None:
    request = step()
    await handlers.step(request)
    handlers.undo_answer = Refused("BOOKS_CLOSED", "the year is closed")
    outcome = await handlers.compensate(undo(request))
    assert (outcome.failure.reason, outcome.failure.never_executed) == ("BOOKS_CLOSED", False)
    handlers.undo_answer = None
    assert (await handlers.compensate(undo(request))).HasField("success")
    assert await handlers.world.effects() == ["act", "undo"]


async def test_a_definite_refusal_has_no_effect_and_is_final_for_its_key(handlers: Handlers) -> None:
    handlers.answer = Refused("CARD_DECLINED", "the bank says no", details={"code": 51})
    request = step()
    first = await handlers.step(request)
    assert (first.failure.reason, first.failure.message) == ("CARD_DECLINED", "the bank says no")
    assert first.failure.never_executed
    assert not first.failure.retryable
    assert first.failure.details["code"] == 51
    handlers.answer = None
    assert await handlers.step(request) == first
    assert await handlers.world.effects() == []
    assert handlers.runs == 1


async def test_a_refused_action_is_compensated_without_running_anything(handlers: Handlers) -> None:
    handlers.answer = Refused("CARD_DECLINED")
    request = step()
    await handlers.step(request)
    assert (await handlers.compensate(undo(request))).HasField("success")
    assert handlers.undone == []


async def test_a_success_that_got_there_first_outweighs_a_refusal(handlers: Handlers) -> None:
    """Two calls with one key: while the refusing one has rolled back and not yet written, the other succeeds."""
    request = step()
    refuse = handlers.tested.barrier.refuse

    async def late_refuse(*arguments: Any) -> Any:
        handlers.answer = {"n": 1}
        await handlers.step(request)
        return await refuse(*arguments)

    handlers.answer = Refused("CARD_DECLINED")
    handlers.tested.barrier.refuse = late_refuse  # type: ignore[method-assign]
    outcome = await handlers.step(request)
    assert json_of(outcome.success.output, "output") == {"n": 1}
    assert await handlers.world.effects() == ["act"]


async def test_a_retryable_refusal_writes_nothing_and_promises_nothing(handlers: Handlers) -> None:
    handlers.answer = Refused("BUSY", retryable=True, retry_after_s=1.5)
    request = step()
    outcome = await handlers.step(request)
    assert outcome.failure.retryable
    assert not outcome.failure.never_executed
    assert outcome.failure.retry_after.ToMilliseconds() == 1500
    handlers.answer = None
    assert (await handlers.step(request)).HasField("success")
    assert await handlers.world.effects() == ["act"]


@pytest.mark.parametrize("earlier", ["action", "compensation"])
async def test_a_call_of_an_older_owner_is_refused_as_ambiguous(handlers: Handlers, earlier: str) -> None:
    request = step(token=4)
    if earlier == "action":
        await handlers.step(request)
    else:
        await handlers.compensate(undo(request))
    effects = await handlers.world.effects()
    older = step(key=request.idempotency_key, token=3)
    with pytest.raises(Fenced, match="token 3 is older than 4"):
        await handlers.step(older)
    with pytest.raises(Fenced, match="token 3 is older than 4"):
        await handlers.compensate(undo(older))
    assert await handlers.world.effects() == effects


async def test_a_newer_owner_gets_the_answer_and_shuts_out_the_older_one(handlers: Handlers) -> None:
    request = step(token=3)
    first = await handlers.step(request)
    assert await handlers.step(step(key=request.idempotency_key, token=4)) == first
    with pytest.raises(Fenced):
        await handlers.step(request)


async def test_pending_commits_what_the_handler_did_and_is_answered_again(handlers: Handlers) -> None:
    for answer in (Pending, Pending()):
        handlers.answer = answer
        request = step()
        for _ in range(2):
            assert (await handlers.step(request)).HasField("pending")
    assert await handlers.world.effects() == ["act", "act"]
    assert handlers.runs == 2


async def test_a_worker_finds_pending_work_with_its_token(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    await handlers.step(step())
    work, _ = await handlers.tested.barrier.pending()
    assert (work.idempotency_key, work.kind) == (request.idempotency_key, Kind.ACTION)
    assert (work.namespace, work.saga_id, work.step_id) == ("default", "saga-1", "the_step")
    assert work.completion_token == "token-1"
    assert len(await handlers.tested.barrier.pending(limit=1)) == 1


async def test_completed_work_is_answered_and_reported_with_its_outcome(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    barrier = handlers.tested.barrier
    async with barrier.completion(request.idempotency_key) as completion:
        await handlers.world.effect(completion.connection, "completed")
        completion.succeed({"tracking": "t-1"})
    sent = completion.request()
    assert (sent.saga_id, sent.step_id, sent.completion_token) == ("saga-1", "the_step", "token-1")
    assert await handlers.step(request) == sent.outcome
    assert json_of(sent.outcome.success.output, "output") == {"tracking": "t-1"}
    assert await barrier.pending() == []
    (work,) = await barrier.undelivered()
    assert work.request() == sent
    await barrier.delivered(work)
    assert await barrier.undelivered() == []
    assert await handlers.world.effects() == ["act", "completed"]


async def test_a_failed_completion_is_rolled_back_and_stays_pending(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    with pytest.raises(BadAnswer):  # noqa: PT012 - the block is what is tested
        async with handlers.tested.barrier.completion(request.idempotency_key) as completion:
            await handlers.world.effect(completion.connection, "completed")
            completion.succeed(object())
    with pytest.raises(RuntimeError, match="not committed"):
        completion.request()
    assert (await handlers.step(request)).HasField("pending")
    assert await handlers.world.effects() == ["act"]


async def test_work_is_completed_once(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    async with handlers.tested.barrier.completion(request.idempotency_key):
        pass
    with pytest.raises(AlreadyCompleted):
        async with handlers.tested.barrier.completion(request.idempotency_key):
            pytest.fail("the block must not run")


async def test_only_known_work_is_completed(handlers: Handlers) -> None:
    with pytest.raises(UnknownWork):
        async with handlers.tested.barrier.completion("unheard of"):
            pytest.fail("the block must not run")


async def test_work_that_ends_in_a_refusal_is_refused_for_good(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    async with handlers.tested.barrier.completion(request.idempotency_key) as completion:
        with pytest.raises(ValueError, match="leave it pending"):
            completion.refuse(Refused("LATER", retryable=True))
        completion.refuse(Refused("NO_CARRIER"))
    outcome = await handlers.step(request)
    assert (outcome.failure.reason, outcome.failure.never_executed) == ("NO_CARRIER", True)
    assert (await handlers.compensate(undo(request))).HasField("success")
    assert handlers.undone == []


async def test_compensating_pending_work_closes_it_and_undoes_what_was_committed(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    assert (await handlers.compensate(undo(request))).HasField("success")
    (call,) = handlers.undone
    assert call.was_pending
    assert call.output is UNKNOWN
    assert await handlers.tested.barrier.pending() == []
    with pytest.raises(PendingClosed):
        async with handlers.tested.barrier.completion(request.idempotency_key):
            pytest.fail("the block must not run")
    outcome = await handlers.step(request)
    assert (outcome.failure.reason, outcome.failure.never_executed) == ("STEP_CLOSED", False)
    assert await handlers.world.effects() == ["act", "undo"]


async def test_pending_work_that_the_coordinator_knows_the_end_of_is_undone_with_its_output(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    output = payload_of({"n": 1})
    await handlers.compensate(undo(request, outcome=pb.ACTION_OUTCOME_SUCCEEDED, output=output))
    (call,) = handlers.undone
    assert call.was_pending
    assert call.output == {"n": 1}


async def test_a_failed_compensation_leaves_pending_work_open(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    handlers.undo_answer = RuntimeError("boom")
    with pytest.raises(HandlerFailed):
        await handlers.compensate(undo(request))
    async with handlers.tested.barrier.completion(request.idempotency_key) as completion:
        completion.succeed({"n": 1})
    handlers.undo_answer = None
    await handlers.compensate(undo(request))
    assert handlers.undone[-1].output == {"n": 1}


async def test_a_completion_and_a_compensation_at_once_take_turns(handlers: Handlers) -> None:
    handlers.answer = Pending
    request = step()
    await handlers.step(request)
    async with handlers.tested.barrier.completion(request.idempotency_key) as completion:
        undoing = asyncio.create_task(handlers.compensate(undo(request)))
        await handlers.world.until_a_call_waits()
        await handlers.world.effect(completion.connection, "completed")
        completion.succeed({"n": 1})
    await undoing
    assert handlers.undone[0].output == {"n": 1}
    assert await handlers.world.effects() == ["act", "completed", "undo"]


async def test_a_compensation_can_be_pending_and_completed(handlers: Handlers) -> None:
    request = step()
    await handlers.step(request)
    handlers.undo_answer = Pending
    for _ in range(2):
        assert (await handlers.compensate(undo(request))).HasField("pending")
    (work,) = await handlers.tested.barrier.pending()
    assert (work.kind, work.completion_token) == (Kind.COMPENSATION, "token-2")
    async with handlers.tested.barrier.completion(request.idempotency_key, Kind.COMPENSATION):
        pass
    assert (await handlers.compensate(undo(request))).HasField("success")
    assert len(handlers.undone) == 1


async def test_a_pending_compensation_that_was_refused_runs_anew(handlers: Handlers) -> None:
    request = step()
    await handlers.step(request)
    handlers.undo_answer = Pending
    await handlers.compensate(undo(request))
    async with handlers.tested.barrier.completion(request.idempotency_key, Kind.COMPENSATION) as completion:
        completion.refuse(Refused("BOOKS_CLOSED"))
    handlers.undo_answer = None
    assert (await handlers.compensate(undo(request))).HasField("success")
    assert len(handlers.undone) == 2
    assert await handlers.tested.barrier.undelivered() == []


async def test_an_unexpected_exception_is_rolled_back_and_tells_no_internals(
    handlers: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    handlers.answer = RuntimeError("password=hunter2")
    request = step()
    with pytest.raises(HandlerFailed) as failed:
        await handlers.step(request)
    incident = failed.value.message.rpartition(" ")[2]
    assert "hunter2" not in failed.value.message
    assert incident in caplog.text
    assert "hunter2" in caplog.text
    assert await handlers.world.effects() == []
    handlers.answer = None
    assert (await handlers.step(request)).HasField("success")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"when": [{"at": timedelta(1)}]}, r"output\.when\[0\]\.at is a timedelta, which is not JSON"),
        ({"name": "a\0b"}, "output.name holds a NUL character"),
        ({"name": "a\ud800b"}, "output.name holds a lone surrogate"),
        ({"big": "x" * 300_000}, "at most 262,144"),
        (Refused("BAD", details={"x": "\0"}), "details.x holds a NUL character"),
    ],
)
async def test_an_answer_that_cannot_be_sent_is_a_fault_and_rolled_back(
    handlers: Handlers, answer: Any, fault: str
) -> None:
    handlers.answer = answer
    with pytest.raises(BadAnswer, match=fault):
        await handlers.step(step())
    assert await handlers.world.effects() == []


async def test_a_call_past_its_time_is_rolled_back(handlers: Handlers) -> None:
    handlers.before_answer.clear()
    request = step()
    request.remaining_time.FromMilliseconds(50)
    with pytest.raises(DeadlinePassed):
        await handlers.step(request)
    assert await handlers.world.effects() == []


async def test_an_unknown_name_is_answered_with_the_known_ones(handlers: Handlers) -> None:
    with pytest.raises(UnknownHandler, match="tested has no action 'fly'; its actions are: act"):
        await handlers.step(step("fly"))
    with pytest.raises(UnknownHandler, match="no compensation 'fall'; its compensations are: undo"):
        await handlers.compensate(undo(step(), "fall"))


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 501])
async def test_a_malformed_key_is_an_invalid_call(handlers: Handlers, key: str) -> None:
    request = step()
    request.idempotency_key = key
    with pytest.raises(InvalidCall):
        await handlers.step(request)


@pytest.mark.parametrize("world", ["memory", "postgres"], indirect=True)  # in Redis, keys expire
async def test_prune_forgets_old_keys_and_keeps_pending_work(handlers: Handlers) -> None:
    barrier = handlers.tested.barrier
    old = step()
    await handlers.step(old)
    await handlers.compensate(undo(old))
    handlers.answer = Pending
    await handlers.step(step())
    undelivered = step()
    await handlers.step(undelivered)
    async with barrier.completion(undelivered.idempotency_key):
        pass
    assert await barrier.prune(timedelta(hours=1)) == 0
    assert await barrier.prune(timedelta(0)) == 2
    assert len(await barrier.pending()) == 1
    assert len(await barrier.undelivered()) == 1
