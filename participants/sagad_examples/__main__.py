"""Serves the example participants: `python -m sagad_examples`, or `sagad-example`."""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from typing import Annotated, Literal

import asyncpg
import grpc
from cyclopts import App, Parameter

from sagad.v1.saga_service_pb2_grpc import SagaServiceStub
from sagad_examples import ledger
from sagad_examples.after_answer import AfterAnswer
from sagad_examples.faults import Fault, Faults
from sagad_examples.inventory import Inventory
from sagad_examples.payment import Payment
from sagad_examples.service import Service
from sagad_examples.shipping import Shipping
from sagad_examples.worker import work
from sagad_participant import start
from sagad_participant.postgres import keep_session
from sagad_participant.serving import stop_signals

SERVICES: tuple[type[Service], ...] = (Inventory, Payment, Shipping)
Name = Literal["inventory", "payment", "shipping"]

app = App(name="sagad-example", help="Example participants of sagas: inventory, payment and shipping.")


def _faults(type_: object, texts: list[str]) -> None:
    """Raises ValueError for what is no fault."""
    for text in texts:
        Fault.parse(text)


@app.default
def run(
    *,
    dsn: Annotated[str, Parameter(env_var="SAGAD_EXAMPLES_DSN")],
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(env_var="SAGAD_EXAMPLES_PORT")] = 7411,
    sagad: Annotated[str, Parameter(env_var="SAGAD_EXAMPLES_SAGAD")] = "127.0.0.1:7400",
    only: Annotated[tuple[Name, ...], Parameter(negative="")] = (),
    fault: Annotated[tuple[str, ...], Parameter(validator=_faults, negative="")] = (),
    pending_delay: float = 1.0,
    connections: int = 10,
) -> None:
    """Serve the examples until SIGTERM or Ctrl-C. Their tables are made, and stock and accounts opened, if missing.

    Parameters
    ----------
    dsn
        The PostgreSQL database of all three, as postgresql://user:password@host:port/database.
    host
        Address to listen on.
    port
        Port of inventory; payment and shipping have the two after it. 0 takes any free ports.
    sagad
        The coordinator, which is told of completed steps.
    only
        Serve just this one; may be repeated. Each keeps its port.
    fault
        Fail on purpose; may be repeated. TARGET=MODE, TARGET=MODE:N (the first N calls) or TARGET=MODE:every=N.
        TARGET: a participant, for its actions, or the name of one action or compensation.
        MODE: refuse, timeout (no effect, no answer), late (effect, no answer), die (effect, then the process ends) or,
        for actions, pending.
        A saga's label `example-fault` does the same for that saga alone; there N counts the step's attempts.
    pending_delay
        Seconds until the worker does what was answered with pending.
    connections
        At most so many connections to PostgreSQL for each participant.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    addresses = {
        service.name: f"{host}:{port and port + offset}"
        for offset, service in enumerate(SERVICES)
        if not only or service.name in only
    }
    try:
        asyncio.run(serve(dsn, addresses, sagad, [Fault.parse(text) for text in fault], pending_delay, connections))
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        sys.exit(f"sagad-example: {error}")


async def serve(
    dsn: str, addresses: dict[str, str], sagad: str, faults: list[Fault], pending_delay_s: float, connections: int
) -> None:
    """Serves participants by name at their addresses until SIGTERM or SIGINT; prints one line when all answer."""
    switch = Faults(faults)
    async with AsyncExitStack() as stack:
        stopped = stack.enter_context(stop_signals())
        stub = SagaServiceStub(await stack.enter_async_context(grpc.aio.insecure_channel(sagad)))
        services: list[Service] = []
        for make in SERVICES:
            pool = asyncpg.create_pool(dsn, min_size=1, max_size=connections, reset=keep_session)
            services.append(make(await stack.enter_async_context(pool), switch))
            await services[-1].create()
        await ledger.seed(dsn)
        _check_targets(faults, services)
        ready = []
        for service in services:
            if service.name not in addresses:
                continue
            server = await start(  # no sessions: they pass by the interceptor
                service.participant,
                addresses[service.name],
                interceptors=[AfterAnswer(switch)],
                max_concurrency=0,
            )
            stack.push_async_callback(server.stop)
            worker = asyncio.create_task(work(service, stub.CompleteStep, pending_delay_s))
            stack.push_async_callback(_cancel, worker)
            ready.append(f"{service.name} {server.address}")
        sys.stdout.write(f"ready: {', '.join(ready)}\n")
        sys.stdout.flush()
        await stopped.wait()


def _check_targets(faults: list[Fault], services: list[Service]) -> None:
    """Raises ValueError for a fault that could never strike."""
    targets = [target for service in services for target in service.targets()]
    for fault in faults:
        if fault.target not in targets:
            raise ValueError(f"a fault cannot have the target {fault.target!r}; there are: {', '.join(targets)}")


async def _cancel(worker: "asyncio.Task[None]") -> None:
    worker.cancel()
    await asyncio.wait([worker])


def main() -> None:
    """The entry point of `sagad-example`."""
    app()


if __name__ == "__main__":
    main()
