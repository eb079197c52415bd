"""What only a barrier in PostgreSQL can show."""

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from support.barrier_worlds import PostgresWorld, step, undo

from sagad.v1 import common_pb2
from sagad_participant import (
    Action,
    Compensation,
    HandlerFailed,
    Participant,
    Unavailable,
    run_action,
    run_compensation,
)
from sagad_participant.postgres import PostgresBarrier, keep_session


class Acting:
    """A participant whose one action does what a test says."""

    def __init__(self, barrier: PostgresBarrier, act: Any) -> None:
        self.participant = Participant("tested", barrier=barrier)
        self.participant.action("act")(act)
        self.participant.compensation("undo")(self.undo)

    async def undo(self, call: Compensation) -> None:
        await call.connection.execute("INSERT INTO effect (text) VALUES ('undo')")

    async def step(self, request: Any = None) -> common_pb2.StepOutcome:
        return await run_action(self.participant, request or step())


async def test_a_swallowed_database_error_is_no_success(postgres_world: PostgresWorld) -> None:
    """COMMIT of a failed transaction is a rollback without an error: the answer must not be success."""

    async def act(call: Action) -> None:
        await postgres_world.effect(call.connection, "act")
        try:
            await call.connection.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError:
            return

    acting = Acting(postgres_world.barrier, act)
    with pytest.raises(HandlerFailed):
        await acting.step()
    assert await postgres_world.effects() == []


async def test_a_handler_that_ends_the_transaction_itself_is_a_fault(postgres_world: PostgresWorld) -> None:
    async def act(call: Action) -> None:
        await call.connection.execute("ROLLBACK")

    with pytest.raises(HandlerFailed):
        await Acting(postgres_world.barrier, act).step()


async def test_a_handler_may_use_savepoints(postgres_world: PostgresWorld) -> None:
    async def act(call: Action) -> None:
        await postgres_world.effect(call.connection, "kept")
        with suppress(asyncpg.DivisionByZeroError):
            async with call.connection.transaction():
                await postgres_world.effect(call.connection, "dropped")
                await call.connection.execute("SELECT 1 / 0")

    assert (await Acting(postgres_world.barrier, act).step()).HasField("success")
    assert await postgres_world.effects() == ["kept"]


async def test_a_connection_lost_in_a_handler_is_ambiguous_and_the_next_call_works(
    postgres_world: PostgresWorld,
) -> None:
    lose = True

    async def act(call: Action) -> None:
        await postgres_world.effect(call.connection, "act")
        if lose:
            backend = await call.connection.fetchval("SELECT pg_backend_pid()")
            await postgres_world.pool.execute("SELECT pg_terminate_backend($1, 5000)", backend)
            await call.connection.execute("SELECT 1")

    acting = Acting(postgres_world.barrier, act)
    request = step()
    with pytest.raises(Unavailable):
        await acting.step(request)
    lose = False
    assert (await acting.step(request)).HasField("success")
    assert await postgres_world.effects() == ["act"]


async def test_a_connection_lost_before_the_commit_is_ambiguous(postgres_world: PostgresWorld) -> None:
    async def act(call: Action) -> None:
        backend = await call.connection.fetchval("SELECT pg_backend_pid()")
        await postgres_world.pool.execute("SELECT pg_terminate_backend($1, 5000)", backend)

    with pytest.raises(Unavailable):
        await Acting(postgres_world.barrier, act).step()


async def test_a_deadlock_of_handlers_is_ambiguous_and_worth_a_retry(postgres_world: PostgresWorld) -> None:
    await postgres_world.pool.execute(
        "CREATE TABLE stock (sku text PRIMARY KEY); INSERT INTO stock VALUES ('a'), ('b')"
    )
    first_locks = asyncio.Barrier(2)

    async def act(call: Action) -> None:
        for sku in call.json:
            await call.connection.execute("SELECT FROM stock WHERE sku = $1 FOR UPDATE", sku)
            if sku == call.json[0]:
                await first_locks.wait()

    acting = Acting(postgres_world.barrier, act)
    requests = [step(), step()]
    for request, skus in zip(requests, (["a", "b"], ["b", "a"]), strict=True):
        request.input.Clear()
        request.input.json.list_value.extend(skus)
    results = await asyncio.gather(*map(acting.step, requests), return_exceptions=True)
    assert sorted(type(result) for result in results if isinstance(result, Exception)) == [Unavailable]


async def test_a_pool_without_a_free_connection_is_unavailable_in_bounded_time(postgres_dsn: str) -> None:
    async def act(call: Action) -> None:
        pytest.fail("the handler must not run")

    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=1) as pool:
        barrier = PostgresBarrier(pool, wait_s=0.2)
        async with pool.acquire():
            with pytest.raises(Unavailable, match=r"no database connection within 0\.2 s"):
                await Acting(barrier, act).step()


async def test_a_database_that_is_away_is_unavailable(postgres_dsn: str) -> None:
    async def act(call: Action) -> None:
        pytest.fail("the handler must not run")

    gone = postgres_dsn.rpartition("@")[0] + "@127.0.0.1:1/gone"
    async with asyncpg.create_pool(gone, min_size=0, max_size=1) as pool:
        with pytest.raises(Unavailable, match="no database connection"):
            await Acting(PostgresBarrier(pool), act).step()


async def test_many_calls_with_one_key_have_one_effect(postgres_world: PostgresWorld) -> None:
    async def act(call: Action) -> dict[str, int]:
        await postgres_world.effect(call.connection, "act")
        return {"attempt": call.attempt}

    acting = Acting(postgres_world.barrier, act)
    request = step()
    outcomes = await asyncio.gather(*(acting.step(request) for _ in range(30)))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert await postgres_world.effects() == ["act"]


async def test_actions_and_compensations_in_any_order_leave_nothing(postgres_world: PostgresWorld) -> None:
    """Thirty keys, each called twice both ways at once: an effect, if there is one, is undone once, afterwards."""

    async def act(call: Action) -> None:
        await postgres_world.effect(call.connection, f"act {call.idempotency_key}")

    acting = Acting(postgres_world.barrier, act)
    undone: list[str] = []

    async def undo_counted(call: Compensation) -> None:
        await postgres_world.effect(call.connection, f"undo {call.idempotency_key}")
        undone.append(call.idempotency_key)

    acting.participant.compensation("undo_counted")(undo_counted)
    requests = [step() for _ in range(30)]
    calls = []
    for request in requests:
        calls += [acting.step(request), run_compensation(acting.participant, undo(request, "undo_counted"))]
        calls += [run_compensation(acting.participant, undo(request, "undo_counted")), acting.step(request)]
    await asyncio.gather(*calls)
    effects = await postgres_world.effects()
    for request in requests:
        mine = [effect.split()[0] for effect in effects if effect.endswith(request.idempotency_key)]
        assert mine in ([], ["act", "undo"])


async def test_several_processes_may_create_the_table_at_once(postgres_dsn: str) -> None:
    async with asyncpg.create_pool(postgres_dsn, min_size=4, max_size=4) as pool:
        await pool.execute("CREATE SCHEMA payment")
        barrier = PostgresBarrier(pool, schema="payment", table="guard")
        await asyncio.gather(*(barrier.create() for _ in range(8)))
        assert await pool.fetchval("SELECT count(*) FROM payment.guard") == 0


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "1a", "x" * 51, "a;b"])
def test_only_plain_identifiers_name_the_table(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a schema or table"):
        PostgresBarrier(None, table=name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no name for a schema or table"):
        PostgresBarrier(None, schema=name)  # type: ignore[arg-type]


async def test_a_call_costs_four_round_trips_of_its_own(postgres_dsn: str) -> None:
    async def act(call: Action) -> dict[str, int]:
        return {"n": 1}

    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=1, reset=keep_session) as pool:
        barrier = PostgresBarrier(pool)
        await barrier.create()
        acting = Acting(barrier, act)
        await acting.step()
        async with pool.acquire() as connection:
            queries: list[str] = []
            connection.add_query_logger(lambda record: queries.append(record.query))
        await acting.step()
        assert [query.split()[0].rstrip(";") for query in queries] == ["BEGIN", "INSERT", "UPDATE", "COMMIT"]
