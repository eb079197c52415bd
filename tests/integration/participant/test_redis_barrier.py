"""What only a barrier in Redis can show, and what it cannot promise."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from redis.asyncio import Redis
from support.barrier_worlds import RedisWorld, step, undo
from support.processes import environment
from support.proxy import Proxy
from support.redis import OwnRedis

from sagad.v1 import common_pb2
from sagad.v1.participant_service_pb2_grpc import ParticipantServiceStub
from sagad_participant import (
    UNKNOWN,
    Action,
    Compensation,
    HandlerFailed,
    Participant,
    Pending,
    Refused,
    Unavailable,
    run_action,
    run_compensation,
    start,
)
from sagad_participant.redis import RedisBarrier

HOLDS_A_KEY = """
import asyncio, sys
from redis.asyncio import Redis
from sagad.v1.participant_service_pb2 import StepRequest
from sagad_participant import Participant, run_action
from sagad_participant.redis import RedisBarrier

async def main(url, name, *keys):
    participant = Participant("tested", barrier=RedisBarrier(Redis.from_url(url), name, lease_s=0.6))

    @participant.action("act")
    async def act(call):
        print(call.idempotency_key, flush=True)
        await asyncio.Event().wait()

    await asyncio.gather(*(run_action(participant, StepRequest(action="act", idempotency_key=key)) for key in keys))

asyncio.run(main(*sys.argv[1:]))
"""


class Acting:
    """A participant whose action does what a test says, and whose compensation is counted."""

    def __init__(self, world: RedisWorld, act: Any, barrier: RedisBarrier | None = None) -> None:
        self.world = world
        self.participant = Participant("tested", barrier=barrier or world.barrier)
        self.participant.action("act")(act)
        self.participant.compensation("undo")(self._undo)
        self.undone: list[Compensation] = []

    async def _undo(self, call: Compensation) -> None:
        self.undone.append(call)
        await self.world.effect(call.connection, f"undo {call.idempotency_key}")

    async def step(self, request: Any) -> common_pb2.StepOutcome:
        return await run_action(self.participant, request)

    async def compensate(self, request: Any) -> common_pb2.StepOutcome:
        return await run_compensation(self.participant, request)


async def nothing(call: Action) -> None: ...


async def fails(call: Action) -> None:
    raise RuntimeError("who knows what has happened")


@pytest_asyncio.fixture
async def own_world(own_redis: OwnRedis) -> AsyncIterator[RedisWorld]:
    async with Redis.from_url(own_redis.url) as client:
        yield RedisWorld.create(client)


async def test_an_action_whose_process_was_killed_is_run_again_once_its_lease_is_over_or_else_compensated(
    redis_world: RedisWorld, redis_url: str
) -> None:
    acting = Acting(redis_world, nothing, RedisBarrier(redis_world.client, redis_world.name, wait_s=0.1))
    again, back = step(), step()
    keys = {again.idempotency_key, back.idempotency_key}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDS_A_KEY, redis_url, redis_world.name, *keys,
        stdout=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert child.stdout is not None
    assert {(await child.stdout.readline()).decode().strip() for _ in keys} == keys
    child.send_signal(signal.SIGKILL)
    await child.wait()
    with pytest.raises(Unavailable, match="another call with this key is still running") as held:
        await acting.step(again)
    assert held.value.retry_after_s is not None
    assert 0 < held.value.retry_after_s <= 0.6
    await asyncio.sleep(held.value.retry_after_s)
    acting.participant.barrier = redis_world.barrier
    assert (await acting.step(again)).HasField("success")
    assert (await acting.compensate(undo(back))).HasField("success")
    (call,) = acting.undone
    assert (call.idempotency_key, call.output) == (back.idempotency_key, UNKNOWN)
    outcome = await acting.step(back)
    assert (outcome.failure.reason, outcome.failure.never_executed) == ("STEP_CLOSED", False)


async def test_the_time_until_the_lease_ends_travels_as_retry_info(redis_world: RedisWorld) -> None:
    running, done = asyncio.Event(), asyncio.Event()

    async def act(call: Action) -> None:
        running.set()
        await done.wait()

    acting = Acting(redis_world, act, RedisBarrier(redis_world.client, redis_world.name, wait_s=0.5, lease_s=20))
    server = await start(acting.participant)
    request = step()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = ParticipantServiceStub(channel)
        first = stub.Step(request)
        await running.wait()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Step(request)
        done.set()
        await first
    await server.stop()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    details: Any = dict(refused.value.trailing_metadata() or ())["grpc-status-details-bin"]
    (detail,) = status_pb2.Status.FromString(details).details
    info = error_details_pb2.RetryInfo()
    assert detail.Unpack(info)
    assert 15 < info.retry_delay.ToTimedelta().total_seconds() <= 20


async def test_a_handler_that_outlives_its_lease_keeps_its_key(redis_world: RedisWorld) -> None:
    runs = 0
    done = asyncio.Event()

    async def act(call: Action) -> None:
        nonlocal runs
        runs += 1
        await done.wait()

    acting = Acting(redis_world, act, RedisBarrier(redis_world.client, redis_world.name, wait_s=0.7, lease_s=0.3))
    request = step()
    first, second = asyncio.create_task(acting.step(request)), asyncio.create_task(acting.step(request))
    ended, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    done.set()
    assert isinstance(ended.pop().exception(), Unavailable)
    assert any(await asyncio.gather(first, second, return_exceptions=True))
    assert runs == 1


async def test_an_action_that_failed_in_an_unknown_way_is_compensated(redis_world: RedisWorld) -> None:
    acting = Acting(redis_world, fails)
    request = step()
    with pytest.raises(HandlerFailed):
        await acting.step(request)
    await acting.compensate(undo(request))
    (call,) = acting.undone
    assert call.output is UNKNOWN
    assert (await acting.step(request)).failure.reason == "STEP_CLOSED"


async def test_a_refusal_after_an_unknown_end_does_not_say_that_nothing_happened(redis_world: RedisWorld) -> None:
    answer: Exception = RuntimeError("who knows what has happened")

    async def act(call: Action) -> None:
        raise answer

    acting = Acting(redis_world, act)
    request = step()
    with pytest.raises(HandlerFailed):
        await acting.step(request)
    answer = Refused("NO_FUNDS")
    outcome = await acting.step(request)
    assert (outcome.failure.reason, outcome.failure.never_executed) == ("NO_FUNDS", False)
    await acting.compensate(undo(request))
    assert len(acting.undone) == 1


async def test_a_commit_whose_answer_is_lost_is_made_once(own_redis: OwnRedis) -> None:
    async with Proxy(own_redis.port).running() as proxy, Redis(port=proxy.port) as client:
        world = RedisWorld.create(client)

        async def act(call: Action) -> None:
            await world.effect(call.connection, "act")
            proxy.cut_answer_to(world.barrier._commit.sha.encode())

        assert (await Acting(world, act).step(step())).HasField("success")
        assert proxy.acted.is_set()
        assert await world.effects() == ["act"]


@pytest.mark.parametrize("how", ["killed", "emptied"])
async def test_redis_lost_in_a_handler_leaves_the_call_ambiguous_and_all_is_well_again_when_it_is_back(
    own_redis: OwnRedis, own_world: RedisWorld, how: str
) -> None:
    lose = True

    async def act(call: Action) -> None:
        await own_world.effect(call.connection, "act")
        if lose and how == "killed":
            own_redis.kill()
        elif lose:
            await own_world.client.flushall()

    barrier = RedisBarrier(own_world.client, own_world.name, wait_s=1, lease_s=0.2)
    acting = Acting(own_world, act, barrier)
    request = step()
    with pytest.raises(Unavailable):
        await acting.step(request)
    lose = False
    if how == "killed":
        with pytest.raises(Unavailable, match="Redis did not answer"):
            await acting.step(request)
        own_redis.start()
    assert (await acting.step(request)).HasField("success")
    assert (await acting.step(request)).HasField("success")
    assert await own_world.effects() == ["act"]


async def test_a_handler_is_ended_when_its_lease_is_lost(own_redis: OwnRedis, own_world: RedisWorld) -> None:
    async def act(call: Action) -> None:
        own_redis.kill()
        await asyncio.Event().wait()

    acting = Acting(own_world, act, RedisBarrier(own_world.client, own_world.name, wait_s=0.2, lease_s=0.3))
    with pytest.raises(Unavailable, match="the lease of this call was lost"):
        await acting.step(step())


async def test_what_is_committed_survives_a_kill(own_redis: OwnRedis, own_world: RedisWorld) -> None:
    async def act(call: Action) -> dict[str, int]:
        return {"attempt": call.attempt}

    acting = Acting(own_world, act)
    done, undone = step(), step()
    first = await acting.step(done)
    await acting.compensate(undo(undone))
    own_redis.kill()
    own_redis.start()
    await own_world.client.connection_pool.disconnect()  # the old connections are broken, and would say so once
    assert await acting.step(done) == first
    assert (await acting.step(undone)).failure.reason == "ALREADY_COMPENSATED"


async def test_many_calls_with_one_key_have_one_effect(redis_world: RedisWorld) -> None:
    async def act(call: Action) -> dict[str, int]:
        await redis_world.effect(call.connection, "act")
        return {"attempt": call.attempt}

    acting = Acting(redis_world, act, RedisBarrier(redis_world.client, redis_world.name))
    request = step()
    outcomes = await asyncio.gather(*(acting.step(request) for _ in range(20)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert await redis_world.effects() == ["act"]


async def test_actions_and_compensations_in_any_order_leave_nothing(redis_world: RedisWorld) -> None:
    """Twenty keys, each called twice both ways at once: an effect, if there is one, is undone once, afterwards."""

    async def act(call: Action) -> None:
        await redis_world.effect(call.connection, f"act {call.idempotency_key}")

    acting = Acting(redis_world, act, RedisBarrier(redis_world.client, redis_world.name))
    requests = [step() for _ in range(20)]
    calls = []
    for request in requests:
        calls += [acting.step(request), acting.compensate(undo(request))]
        calls += [acting.compensate(undo(request)), acting.step(request)]
    await asyncio.gather(*calls)
    effects = await redis_world.effects()
    for request in requests:
        mine = [effect.split()[0] for effect in effects if effect.endswith(request.idempotency_key)]
        assert mine in ([], ["act", "undo"])


async def test_keys_expire_after_their_last_call_and_open_work_never_does(redis_world: RedisWorld) -> None:
    answer: Any = None

    async def act(call: Action) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    barrier = RedisBarrier(redis_world.client, redis_world.name, keep=timedelta(hours=2))
    acting = Acting(redis_world, act, barrier)

    async def expiry_s(request: Any) -> int:
        return int(await redis_world.client.ttl(f"{{sagad:{redis_world.name}}}:key:{request.idempotency_key}"))

    done, failed, open_work = step(), step(), step()
    await acting.step(done)
    answer = RuntimeError("boom")
    with pytest.raises(HandlerFailed):
        await acting.step(failed)
    answer = Pending
    await acting.step(open_work)
    assert 7190 < await expiry_s(done) <= 7200
    assert 7190 < await expiry_s(failed) <= 7200
    assert await expiry_s(open_work) == -1
    async with barrier.completion(open_work.idempotency_key):
        pass
    assert await expiry_s(open_work) == -1
    (work,) = await barrier.undelivered()
    await barrier.delivered(work)
    assert 7190 < await expiry_s(open_work) <= 7200
    assert await barrier.prune(timedelta(0)) == 0


async def test_two_round_trips_make_a_call(redis_world: RedisWorld) -> None:
    acting = Acting(redis_world, nothing)
    await acting.step(step())
    sent: list[str] = []
    execute = redis_world.client.execute_command

    async def counted(*words: Any, **options: Any) -> Any:
        sent.append(str(words[0]))
        return await execute(*words, **options)

    redis_world.client.execute_command = counted  # type: ignore[method-assign]
    await acting.step(step())
    assert sent == ["EVALSHA", "EVALSHA"]


@pytest.mark.parametrize("name", ["", "a b", "{a}", "x" * 101])
async def test_only_plain_words_name_the_keys(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name the barrier's keys"):
        RedisBarrier(Redis(), name)


async def test_a_client_that_decodes_and_an_absurd_lease_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="decode_responses"):
        RedisBarrier(Redis(decode_responses=True), "payment")
    with pytest.raises(ValueError, match="lease_s"):
        RedisBarrier(Redis(), "payment", lease_s=0)
