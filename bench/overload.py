"""Overload: the peak of closed-loop clients, then arrivals at a multiple of it: `python -m bench.overload`."""

import asyncio
import itertools
import json
import os
import time
from collections import Counter
from typing import Any

import grpc.aio
import uvloop
from cyclopts import App
from google.protobuf import json_format, struct_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.database import fresh_database, postgres
from bench.http2 import Calls
from bench.load import ORDER
from bench.measure import load
from bench.modes import Mode
from bench.processes import PYTHON, cpu_s, output_of, rss_mib
from bench.report import percentile_ms
from bench.subjects import Running, sagad
from sagad.v1 import common_pb2
from sagad.v1 import saga_service_pb2 as pb

CALL_TIMEOUT_S = 30
_START = "/sagad.v1.SagaService/StartSaga"
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_RAMP_S = 2.0
"""Until queues have filled, and the first that waited in them have ended."""
_TICK_S = 0.01

app = App(name="overload", help="What sagad still does when more sagas arrive than it can drive.")


async def arrive(calls: Calls, per_s: float, seconds: float) -> dict[str, object]:
    """Starts sagas at this rate, whatever becomes of them; how many end in each of the last `seconds`."""
    run, numbers = os.urandom(4).hex(), itertools.count()
    order = common_pb2.Payload(json=json_format.ParseDict(ORDER, struct_pb2.Value()))
    same = pb.StartSagaRequest(definition_id="bench", input=order, wait=True).SerializeToString()
    codes: Counter[str] = Counter()
    refused_by: Counter[str] = Counter()
    accepted_s: list[float] = []
    refused_s: list[float] = []
    in_time = 0
    began = time.monotonic()

    def start() -> None:
        at = time.monotonic()

        def ended(code: int | None, detailed: bool) -> None:
            nonlocal in_time
            now = time.monotonic()
            if code == 0:
                codes["OK"] += 1
                accepted_s.append(now - at)
                in_time += _RAMP_S < now - began < _RAMP_S + seconds
            else:
                codes["reset" if code is None else _NAMES[code]] += 1
                refused_by["sagad" if detailed else "gRPC"] += 1
                refused_s.append(now - at)

        calls.call(same + pb.StartSagaRequest(saga_id=f"{run}-{next(numbers):012d}").SerializeToString(), ended)

    started = 0
    while (passed := time.monotonic() - began) < _RAMP_S + seconds:
        while started < passed * per_s:
            start()
            started += 1
        await asyncio.sleep(_TICK_S)
    took = time.monotonic() - began
    while calls.under_way:  # noqa: ASYNC110 - each of them is bounded
        await asyncio.sleep(_TICK_S)
    accepted_s.sort()
    refused_s.sort()
    return {
        "arrived_per_s": started / took,
        "ended_per_s": in_time / seconds,
        "codes": codes,
        "refused_by": refused_by,
        "accepted_ms": [percentile_ms(accepted_s, share) for share in (0.5, 0.99, 1.0)],
        "refused_ms": [percentile_ms(refused_s, share) for share in (0.5, 0.99, 1.0)],
        "settled_s": time.monotonic() - began - took,
        "load_cpu": time.process_time() / took,
    }


@app.command
def arrivals(*, port: int, per_s: float, seconds: float) -> None:
    """The load, which is a process of its own."""

    async def run() -> None:
        _, calls = await asyncio.get_running_loop().create_connection(
            lambda: Calls(_START, CALL_TIMEOUT_S), "127.0.0.1", port
        )
        await calls.ready
        print(json.dumps(await arrive(calls, per_s, seconds)))

    uvloop.run(run())


async def watch(running: Running, until: asyncio.Event) -> dict[str, float]:
    """The server's memory, and how long a health check takes at most, sampled till the end."""
    most_mib, health_s = 0.0, list[float]()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while not until.is_set():
            most_mib = max(most_mib, rss_mib(running.coordinator_pid))
            began = time.monotonic()
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
            health_s.append(time.monotonic() - began)
            await asyncio.sleep(0.2)
    health_s.sort()
    return {"rss_mib": most_mib, "health_p50_ms": percentile_ms(health_s, 0.5), "health_max_ms": health_s[-1] * 1e3}


async def measure(dsn: str, times: float, clients: int, seconds: float) -> dict[str, Any]:
    """The peak of sagad on a fresh database beside that of `dsn`, and what becomes of `times` as many arrivals."""
    async with fresh_database(dsn) as database, sagad(database, Mode(clients)) as running:
        await load(running, Mode(clients), _RAMP_S)
        before_s = cpu_s(running.coordinator_pid)
        peak = await load(running, Mode(clients), seconds)
        peak_cpu_us = (cpu_s(running.coordinator_pid) - before_s) / peak["sagas"] * 1e6
        until = asyncio.Event()
        watching = asyncio.create_task(watch(running, until))
        before_s = cpu_s(running.coordinator_pid)
        words = ["--port", str(running.port), "--seconds", str(seconds), "--per-s", str(peak["per_s"] * times)]
        found: dict[str, Any] = json.loads(await output_of(PYTHON, "-m", "bench.overload", "arrivals", *words))
        spent_s = cpu_s(running.coordinator_pid) - before_s
        until.set()
        found |= await watching
        found["coordinator_cpu"] = spent_s / (_RAMP_S + seconds)
        # For a saga that is driven; where the coordinator's processor is the limit, this is what the rate depends on.
        found["peak_cpu_us"], found["overload_cpu_us"] = peak_cpu_us, spent_s / found["codes"]["OK"] * 1e6
        found["peak_per_s"], found["of_peak"] = peak["per_s"], found["ended_per_s"] / peak["per_s"]
        found["afterwards_per_s"] = (await load(running, Mode(clients), seconds / 2))["per_s"]
    return found


@app.default
def overload(*, times: float = 3.0, clients: int = 256, seconds: float = 10, dsn: str | None = None) -> None:
    """Prints the peak, and what is left of it at `times` as many arrivals."""
    with postgres(dsn) as server:
        print(json.dumps(asyncio.run(measure(server, times, clients, seconds)), indent=1))


if __name__ == "__main__":
    app()
