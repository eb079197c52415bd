"""Watchers: how soon they hear of transitions, and what they cost the sagas."""

import asyncio
import json
import time

import grpc.aio
import uvloop
from cyclopts import App

from bench.database import fresh_database
from bench.measure import WARM_UP_S, load
from bench.modes import Mode
from bench.processes import PYTHON, port_of, running, tree_cpu_s
from bench.report import percentile_ms
from bench.subjects import Running, sagad
from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1 import saga_service_pb2_grpc as rpc

CLIENTS = 64

app = App(name="watch", help="The watchers, which are a process of their own.")


class Watchers:
    """Each watches the sagas of one value of the label `watcher`; together they see every transition once."""

    def __init__(self, channel: grpc.aio.Channel, count: int) -> None:
        self._stub: rpc.SagaServiceAsyncStub = rpc.SagaServiceStub(channel)
        self._count = count
        self._lags_s: list[float] = []

    async def run(self, port: int, seconds: float) -> dict[str, float]:
        """Prints `ready` once all watch, and returns what they have seen in `seconds` from then."""
        begun = [asyncio.Event() for _ in range(self._count)]
        watches = [asyncio.create_task(self._watch(number, event)) for number, event in enumerate(begun)]
        for event in begun:
            await event.wait()
        print("ready", port, flush=True)
        done, _ = await asyncio.wait(watches, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for watch in done:
            watch.result()  # none ends by itself, but by an error
        for watch in watches:
            watch.cancel()
        ordered_s = sorted(self._lags_s)
        p50_ms, p99_ms = (percentile_ms(ordered_s, share) for share in (0.5, 0.99))
        return {"events_per_s": len(ordered_s) / seconds, "lag_p50_ms": p50_ms, "lag_p99_ms": p99_ms}

    async def _watch(self, number: int, begun: asyncio.Event) -> None:
        chosen = saga_pb2.SagaFilter(labels={"watcher": str(number)})
        async for response in self._stub.WatchSagas(pb.WatchSagasRequest(filter=chosen)):
            begun.set()
            now_s = time.time()
            self._lags_s.extend(now_s - watched.event.time.ToMicroseconds() / 1e6 for watched in response.events)


async def watch(dsn: str, watchers: int, seconds: float) -> dict[str, float | str]:
    """Events delivered a second, and their lag behind PostgreSQL's clock; and the sagas a second and the coordinator's
    CPU time for one, without watchers and with them."""
    mode = Mode(CLIENTS, watchers=watchers)
    async with fresh_database(dsn) as database, sagad(database, mode) as server:
        await load(server, mode, WARM_UP_S)
        without = await _loaded(server, mode, seconds)
        options = ["--port", str(server.port), "--watchers", str(watchers), "--seconds", str(seconds)]
        async with running(PYTHON, "-m", "bench.watch", *options) as process:
            await port_of(process)
            beside = await _loaded(server, mode, seconds)
            assert process.stdout is not None
            seen: dict[str, float] = json.loads(await process.stdout.read())
    names = ("per_s", "cpu_us")
    figures = {f"{name}_without": without[name] for name in names} | {name: beside[name] for name in names}
    return {"watchers": watchers, **seen, **figures}


async def _loaded(server: Running, mode: Mode, seconds: float) -> dict[str, float]:
    before_s = tree_cpu_s(server.coordinator_pid)
    ended = await load(server, mode, seconds)
    ended["cpu_us"] = (tree_cpu_s(server.coordinator_pid) - before_s) / ended["sagas"] * 1e6
    return ended


@app.default
def main(*, port: int, watchers: int, seconds: float) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            print(json.dumps(await Watchers(channel, watchers).run(port, seconds)))

    uvloop.run(run())


if __name__ == "__main__":
    app()
