"""The example participants, called as a coordinator calls them."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from support.example_participants import Examples, examples, order

from sagad.v1 import saga_service_pb2
from sagad.v1.saga_service_pb2_grpc import SagaServiceServicer, add_SagaServiceServicer_to_server
from sagad_examples import ledger


async def test_an_order_is_done_and_another_one_undone_without_a_trace(postgres_dsn: str) -> None:
    async with examples(postgres_dsn) as running:
        done, undone = order("done"), order("undone")
        for step_id in ("reserve", "charge", "ship", "notify"):
            assert (await running.step(step_id, done)).HasField("success")
        for step_id in ("reserve", "charge"):
            assert (await running.step(step_id, undone)).HasField("success")
        partly = await ledger.balance(postgres_dsn)
        for step_id in ("charge", "reserve"):
            assert (await running.undo(step_id, undone)).HasField("success")
    balance = await ledger.balance(postgres_dsn)
    assert (partly.orders_done, partly.orders_partly_done, partly.orders_undone) == (1, 1, 0)
    assert (balance.orders_done, balance.orders_partly_done, balance.orders_undone) == (1, 0, 1)
    assert partly.adds_up
    assert balance.adds_up
    assert (balance.stock_reserved, balance.cents_taken) == (2, 1999)
    assert await ledger.check(postgres_dsn, {"done": True, "undone": False}) == []


@pytest.mark.parametrize(
    ("step_id", "wrong", "reason"),
    [
        ("reserve", {"sku": "unicorn"}, "OUT_OF_STOCK"),
        ("reserve", {"sku": "dodo"}, "UNKNOWN_SKU"),
        ("reserve", {"quantity": 1.5}, "INVALID_ORDER"),
        ("charge", {"customer": "pauper"}, "INSUFFICIENT_FUNDS"),
        ("charge", {"customer": "nobody"}, "UNKNOWN_CUSTOMER"),
        ("charge", {"amount_cents": 0}, "INVALID_ORDER"),
        ("ship", {"customer": ""}, "INVALID_ORDER"),
    ],
)
async def test_business_says_no_for_good(
    running: Examples, postgres_dsn: str, step_id: str, wrong: dict[str, object], reason: str
) -> None:
    outcome = await running.step(step_id, order("o", **wrong))
    assert (outcome.failure.reason, outcome.failure.never_executed) == (reason, True)
    assert await ledger.check(postgres_dsn, {"o": False}) == []


async def test_an_order_is_not_done_twice_by_two_sagas(running: Examples, postgres_dsn: str) -> None:
    for step_id in ("reserve", "charge", "ship"):
        assert (await running.step(step_id, order("o"))).HasField("success")
        outcome = await running.step(step_id, order("o"), idempotency_key=f"another/{step_id}/1")
        assert outcome.failure.reason == "ORDER_EXISTS"
    assert await ledger.check(postgres_dsn, {"o": True}) == []


@pytest_asyncio.fixture
async def running(postgres_dsn: str) -> AsyncIterator[Examples]:
    async with examples(postgres_dsn) as process:
        yield process


async def test_the_switch_makes_a_participant_refuse(running: Examples) -> None:
    labels = {"example-fault": "payment=refuse"}
    assert (await running.step("reserve", order("o"), labels=labels)).HasField("success")
    outcome = await running.step("charge", order("o"), labels=labels)
    assert (outcome.failure.reason, outcome.failure.never_executed) == ("REFUSED_ON_PURPOSE", True)
    assert (await running.step("charge", order("another"))).HasField("success")


@pytest.mark.parametrize(("mode", "happened"), [("timeout", False), ("late", True)])
async def test_the_switch_makes_a_participant_time_out(postgres_dsn: str, mode: str, happened: bool) -> None:
    async with examples(postgres_dsn, "--fault", f"payment={mode}:1") as running:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await running.step("charge", order("o"), timeout=0.5)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert ((await ledger.balance(postgres_dsn)).cents_taken == 1999) is happened
        assert (await running.step("charge", order("o"))).HasField("success")
    balance = await ledger.balance(postgres_dsn)
    assert balance.cents_taken == 1999
    assert balance.adds_up


async def test_a_death_between_effect_and_answer_leaves_one_effect(postgres_dsn: str) -> None:
    async with examples(postgres_dsn, "--fault", "payment=die:1") as running:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await running.step("charge", order("o"))
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await running.process.wait() == 70
    assert (await ledger.balance(postgres_dsn)).cents_taken == 1999
    async with examples(postgres_dsn, "--fault", "payment=die:1") as running:  # a replay has no effect to die after
        outcome = await running.step("charge", order("o"))
        assert outcome.success.output.json.struct_value["charged_cents"] == 1999
        assert (await ledger.balance(postgres_dsn)).cents_taken == 1999
        await running.undo("charge", order("o"))
    assert await ledger.check(postgres_dsn, {"o": False}) == []


async def test_kills_in_the_middle_leave_each_effect_once(postgres_dsn: str) -> None:
    """Sixty calls at a time are made again and again, and the process is killed after every eight answers."""
    orders = [order(f"o-{number}", customer="bob", sku="pear") for number in range(20)]
    open_calls = {(step_id, number) for number in range(20) for step_id in ("reserve", "charge", "ship")}
    answers = 0

    async def call(running: Examples, step_id: str, number: int, kill_after: int) -> None:
        nonlocal answers
        try:
            outcome = await running.step(step_id, orders[number])
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017
            return
        assert outcome.HasField("success")
        open_calls.discard((step_id, number))
        answers += 1
        if answers == kill_after:
            running.process.kill()

    for kill in range(1, 6):
        async with examples(postgres_dsn) as running:
            await asyncio.gather(*(call(running, *each, kill * 8) for each in list(open_calls)))
    async with examples(postgres_dsn) as running:
        await asyncio.gather(*(call(running, *each, 0) for each in list(open_calls)))
    assert not open_calls
    assert await ledger.check(postgres_dsn, {str(each["order_id"]): True for each in orders}) == []


class Coordinator(SagaServiceServicer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Any] = asyncio.Queue()

    async def CompleteStep(self, request: Any, context: Any) -> saga_service_pb2.CompleteStepResponse:
        await self.told.put(request)
        return saga_service_pb2.CompleteStepResponse()


Coordinator.__abstractmethods__ = frozenset()


@pytest_asyncio.fixture
async def coordinator() -> AsyncIterator[tuple[Coordinator, str]]:
    servicer = Coordinator()
    server = grpc.aio.server()
    add_SagaServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(0)


async def test_pending_work_is_done_by_the_worker_and_told(
    postgres_dsn: str, coordinator: tuple[Coordinator, str]
) -> None:
    servicer, address = coordinator
    arguments = ("--pending-delay", "0", "--fault", "shipping=pending")
    async with examples(postgres_dsn, *arguments, sagad=address) as running:
        for step_id in ("reserve", "charge"):
            await running.step(step_id, order("o"))
        assert (await running.step("ship", order("o"))).HasField("pending")
        told = await asyncio.wait_for(servicer.told.get(), 20)
        assert (told.saga_id, told.step_id, told.completion_token) == ("o", "ship", "token of ship")
        assert (await running.step("ship", order("o"))) == told.outcome
    assert await ledger.check(postgres_dsn, {"o": True}) == []


async def test_pending_work_outlives_its_process(postgres_dsn: str, coordinator: tuple[Coordinator, str]) -> None:
    servicer, address = coordinator
    async with examples(postgres_dsn, "--pending-delay", "3600", "--fault", "payment=pending") as running:
        assert (await running.step("charge", order("o", customer="pauper"))).HasField("pending")
    async with examples(postgres_dsn, "--pending-delay", "0", sagad=address):
        told = await asyncio.wait_for(servicer.told.get(), 20)
    assert (told.outcome.failure.reason, told.outcome.failure.never_executed) == ("INSUFFICIENT_FUNDS", True)


async def test_pending_work_that_is_compensated_is_never_done(postgres_dsn: str) -> None:
    arguments = ("--pending-delay", "0.5", "--fault", "shipping=pending")
    async with examples(postgres_dsn, *arguments) as running:
        assert (await running.step("ship", order("o"))).HasField("pending")
        assert (await running.undo("ship", order("o"))).HasField("success")
        outcome = await running.step("ship", order("o"))
        assert outcome.failure.reason == "STEP_CLOSED"
    assert await ledger.check(postgres_dsn, {"o": False}) == []


async def test_sigterm_stops_the_examples_cleanly(running: Examples) -> None:
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.process.wait(), 20) == 0


async def test_one_participant_can_be_served_alone(postgres_dsn: str) -> None:
    async with examples(postgres_dsn, "--only", "payment") as running:
        assert list(running.addresses) == ["payment"]


async def test_the_ledger_finds_what_is_wrong(running: Examples, postgres_dsn: str) -> None:
    for step_id in ("reserve", "charge", "ship"):
        await running.step(step_id, order("o"))
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(
        "INSERT INTO payment.effect (idempotency_key, kind, name, order_id, amount) VALUES"
        " ('o/charge/1', 'action', 'charge_card', 'o', 1999), ('x', 'compensation', 'refund_card', 'o', 1999)"
    )
    await connection.execute("UPDATE inventory.stock SET on_hand = on_hand - 1 WHERE sku = 'apple'")
    await connection.execute("DELETE FROM shipping.shipment")
    await connection.close()
    assert await ledger.check(postgres_dsn, {"o": True, "p": True}) == [
        "stock: opened with 600000, but 599997 on hand and 2 reserved make 599999",
        "order o: charge_card had its effect twice with the key o/charge/1",
        "order o: refund_card undid what had not happened (key x)",
        "order o: it succeeded, and there is no create_shipment",
        "order o: it succeeded, and charge_card had its effect 2 times",
        "order p: it succeeded, and there is no reserve_stock",
        "order p: it succeeded, and there is no charge_card",
        "order p: it succeeded, and there is no create_shipment",
    ]
    assert "order o: it was compensated, and there still is charge_card, reserve_stock" in await ledger.check(
        postgres_dsn, {"o": False}
    )
    assert "order o: it has had effects, and nobody knows of its saga" in await ledger.check(postgres_dsn, {})


async def test_reset_opens_anew(running: Examples, postgres_dsn: str) -> None:
    await running.step("charge", order("o"))
    await ledger.reset(postgres_dsn)
    balance = await ledger.balance(postgres_dsn)
    assert (balance.cents_taken, balance.orders_partly_done) == (0, 0)
    assert balance.opening_cents == balance.cents_on_accounts == 6_000_000_000
    assert (await running.step("charge", order("o"))).HasField("success")
