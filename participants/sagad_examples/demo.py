"""`make demo`: the main job in a minute. Exit code 0 only if everything adds up."""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import cyclopts
from rich.console import Console
from rich.progress import Progress

from sagad.v1.saga_pb2 import SagaFilter, SagaState, Step, StepChange, StepState
from sagad_client import Client, SagadError
from sagad_examples import ledger
from sagad_examples.local import Local, LocalError, Process, stopping
from sagad_server.embedded import EmbeddedPostgresError

ORDERS = 300
_CONCURRENCY = 32
_END_TIMEOUT_S = 30.0
_NOT_STARTED = StepState.STEP_STATE_NOT_STARTED
_ENDED = {SagaState.SAGA_STATE_SUCCEEDED, SagaState.SAGA_STATE_COMPENSATED}


_MOVING = [SagaState.SAGA_STATE_RUNNING, SagaState.SAGA_STATE_COMPENSATING]


class DemoError(Exception):
    """Something did not go as the demo says."""


class Demo:
    """The four scenes, over one sagad."""

    def __init__(self, console: Console, local: Local, client: Client, processes: list[Process]) -> None:
        self._console = console
        self._local = local
        self._client = client
        self._processes = processes
        self._run = f"{int(time.time()):x}"
        self._began = 0.0
        self.ended: dict[str, bool] = {}
        """Whether each order's saga succeeded."""

    async def succeed(self) -> None:
        self._title("1. An order that succeeds")
        order = self._order("happy", "alice", "apple", 2, 700)
        await self._start(order)
        await self._follow(order["order_id"], SagaState.SAGA_STATE_SUCCEEDED)

    async def refuse(self) -> None:
        self._title("2. An order that cannot be paid: what was done is undone, in reverse")
        order = self._order("broke", "pauper", "pear", 1, 350)
        await self._start(order)
        await self._follow(order["order_id"], SagaState.SAGA_STATE_COMPENSATED)

    async def crash(self) -> None:
        self._title("3. The coordinator is killed in the middle (SIGKILL), and started again")
        order = self._order("crash", "bob", "fig", 3, 900)
        # The payment is taken, but its first answer never comes: the saga is in the middle when sagad dies.
        await self._start(order, labels={"example-fault": "payment=late:1"})
        saga_id = str(order["order_id"])
        await self._follow(saga_id, SagaState.SAGA_STATE_SUCCEEDED, on_charge=self._kill)
        saga = await self._client.get(saga_id)
        self._console.print(f"  charge was called {saga.steps[1].attempt} times with one key, and charged once")

    async def _kill(self) -> None:
        await asyncio.sleep(0.3)  # the payment's effect is there now, its answer is not
        self._processes[-1].kill()
        self._console.print("              [bold red]sagad is dead[/]")
        self._processes[-1] = self._local.sagad()
        restarted = time.monotonic()
        await self._local.ready(self._client, *self._processes)
        self._console.print(f"              [bold green]sagad is back[/] after {time.monotonic() - restarted:.1f} s")

    async def many(self, folder: Path) -> None:
        self._title(f"4. A file of {ORDERS} orders, some of which cannot be done")
        path = folder / "orders.jsonl"
        path.write_text("".join(json.dumps(order) + "\n" for order in self._many_orders()))
        orders = [json.loads(line) for line in path.read_text().splitlines()]
        gate = asyncio.Semaphore(_CONCURRENCY)
        with Progress(console=self._console) as progress:
            task = progress.add_task("  orders", total=len(orders))

            async def one(order: dict[str, object]) -> None:
                async with gate:
                    saga = await self._client.start("order", order, saga_id=str(order["order_id"]), wait=True)
                self._note(saga.saga_id, saga.state)
                progress.advance(task)

            began = time.monotonic()
            await asyncio.gather(*(one(order) for order in orders))
            took = time.monotonic() - began
        done = sum(self.ended.values())
        self._console.print(
            f"  {len(orders)} orders in {took:.1f} s ({len(orders) / took:.0f}/s); so far {done} done, "
            f"{len(self.ended) - done} undone"
        )

    async def close(self) -> None:
        self._title("5. Does it add up?")
        violations = await ledger.check(self._local.dsn, self.ended)
        balance = await ledger.balance(self._local.dsn)
        print_ = self._console.print
        print_(f"  stock: {balance.opening_stock} = {balance.stock_on_hand} on hand + {balance.stock_reserved} sold")
        print_(
            f"  money: {_euros(balance.opening_cents)} = {_euros(balance.cents_on_accounts)} on accounts + "
            f"{_euros(balance.cents_taken)} taken"
        )
        at_once = len(self.ended) - balance.orders_done - balance.orders_partly_done - balance.orders_undone
        print_(
            f"  orders: {len(self.ended)} = {balance.orders_done} done + {balance.orders_undone} undone without a trace"
            f" + {at_once} refused before anything was done"
        )
        if violations:
            raise DemoError("it does not add up:\n  " + "\n  ".join(violations[:20]))
        print_("  [bold green]It adds up, to the piece and to the cent.[/]")

    async def _start(self, order: dict[str, object], labels: dict[str, str] | None = None) -> None:
        self._began = time.monotonic()
        saga = await self._client.start("order", order, saga_id=str(order["order_id"]), labels=labels)
        self._console.print(f"  StartSaga {saga.saga_id} {json.dumps(order)}")

    async def _follow(
        self, saga_id: object, wanted: SagaState.ValueType, on_charge: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Shows the transitions live, until the end; the watch resumes by itself where sagad dies."""
        state = SagaState.SAGA_STATE_UNSPECIFIED
        async with asyncio.timeout(_END_TIMEOUT_S):
            async for message in self._client.watch(str(saga_id)):
                if message.WhichOneof("update") == "event":
                    changes = message.event.changes
                    state = message.event.state
                    self._show(message.revision, state, ", ".join(_change(change) for change in changes))
                    moved = {change.step_id: change.state for change in changes}
                else:
                    state = message.snapshot.state
                    steps = [step for step in message.snapshot.steps if step.state != _NOT_STARTED]
                    self._show(message.revision, state, ", ".join(_change(step) for step in steps))
                    moved = {step.step_id: step.state for step in steps}
                if on_charge is not None and moved.get("charge") == StepState.STEP_STATE_RUNNING:
                    at_charge, on_charge = on_charge, None
                    await at_charge()
        self._note(str(saga_id), state)
        if state != wanted:
            raise DemoError(f"saga {saga_id} ended {SagaState.Name(state)}, not {SagaState.Name(wanted)}")

    def _note(self, saga_id: str, state: SagaState.ValueType) -> None:
        if state not in _ENDED:
            raise DemoError(f"saga {saga_id} is {SagaState.Name(state)}, which is no end")
        self.ended[saga_id] = state == SagaState.SAGA_STATE_SUCCEEDED

    def _show(self, revision: int, state: SagaState.ValueType, changes: str) -> None:
        name = SagaState.Name(state).removeprefix("SAGA_STATE_")
        colour = {"SUCCEEDED": "green", "COMPENSATING": "yellow", "COMPENSATED": "yellow"}.get(name, "cyan")
        elapsed_ms = (time.monotonic() - self._began) * 1000
        self._console.print(f"  {elapsed_ms:7.0f} ms  {revision:>2}  [{colour}]{name:<12}[/] {changes}")

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/]")

    def _order(self, name: str, customer: str, sku: str, quantity: int, amount_cents: int) -> dict[str, object]:
        return {
            "order_id": f"{self._run}-{name}",
            "customer": customer,
            "sku": sku,
            "quantity": quantity,
            "amount_cents": amount_cents,
        }

    def _many_orders(self) -> list[dict[str, object]]:
        chance = random.Random(7)  # noqa: S311 - orders, not secrets
        customers = [name for name, cents in ledger.ACCOUNTS.items() if cents]
        skus = [sku for sku, pieces in ledger.STOCK.items() if pieces]
        orders = []
        for index in range(ORDERS):
            customer = "pauper" if index % 10 == 3 else chance.choice(customers)
            sku = "unicorn" if index % 25 == 7 else chance.choice(skus)
            orders.append(self._order(f"{index:04d}", customer, sku, chance.randint(1, 5), chance.randint(100, 99_999)))
        return orders


def _change(change: StepChange | Step) -> str:
    state = StepState.Name(change.state).removeprefix("STEP_STATE_").lower().replace("_", " ")
    why = f" ({change.failure.reason})" if change.HasField("failure") else ""
    return f"{change.step_id} {state}{why}"


def _euros(cents: int) -> str:
    return f"{cents // 100:,}.{cents % 100:02d}"


async def _run(console: Console, data_dir: Path | None) -> None:
    local = Local("demo", data_dir)
    console.print("sagad on an embedded PostgreSQL, with three example participants as a process of their own")
    await local.prepare()
    processes = [local.participants()]
    with stopping(processes):
        processes.append(local.sagad())
        async with Client(local.address) as client:
            await local.ready(client, *processes)
            async for left_over in client.list(SagaFilter(states=_MOVING)):  # of a demo that was interrupted
                await client.wait(left_over.saga_id, timeout_s=_END_TIMEOUT_S)
            await ledger.reset(local.dsn)
            definitions = await local.apply_definitions(client)
            console.print(f"sagad serves at {local.address}; definitions: {', '.join(definitions)}")
            demo = Demo(console, local, client, processes)
            await demo.succeed()
            await demo.refuse()
            await demo.crash()
            await demo.many(local.folder)
            await demo.close()


def main(*, data_dir: Path | None = None) -> None:
    """Keeps its data in `data_dir`; default: a folder of its own beside that of `sagad dev`."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        asyncio.run(_run(console, data_dir))
    except (DemoError, LocalError, EmbeddedPostgresError, SagadError, TimeoutError) as error:
        console.print(f"[bold red]{type(error).__name__}[/]: {error}")
        sys.exit(1)


if __name__ == "__main__":
    cyclopts.run(main)
