"""A lane's relay, on a store and a Kafka in memory."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from prometheus_client import CollectorRegistry
from support.server import eventually
from support.simulation.kafka import Broker, SimulatedKafka
from support.storage import Backend, definition, end, key, memory_backend, start

from sagad_server.mirror.lane import LaneRelay
from sagad_server.mirror.metrics import MirrorMetrics
from sagad_server.mirror.reader import Reader
from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.memory_mirror import MemoryMirror
from sagad_server.storage.mirror import LANES, relay_partition
from sagad_server.storage.selection import SagaFilter
from sagad_server.system import SystemClock, SystemRandom

SETTINGS = MirrorSettings(bootstrap_servers="", interval_s=0.01)
TOPIC = SETTINGS.topic
LANE = relay_partition(*key("a")) % LANES
OTHER = next(f"b{n}" for n in range(1000) if relay_partition(*key(f"b{n}")) % LANES == LANE)


class Process:
    """One that relays the lane, and can be frozen before it reads on."""

    def __init__(self, tables: MemoryMirror, broker: Broker) -> None:
        self._tables = tables
        self._broker = broker
        self.relay_id = uuid4()
        self.reader = Reader(tables, SystemClock(), SystemRandom(), SETTINGS.interval_s, payloads=False)

    async def start(self, dead: UUID | None = None) -> None:
        """`dead`: whose lanes it takes."""
        tables = self._tables
        await tables.enter(self.relay_id, TOPIC, str(self.relay_id), replaces=True)
        if dead is not None:
            await tables.bury(dead, 0)
        await tables.claim(self.relay_id, TOPIC, LANES)
        row = (await tables.lanes(TOPIC))[LANE]
        assert row.owner == self.relay_id
        metrics, kafka = MirrorMetrics(CollectorRegistry()), SimulatedKafka(self._broker, TOPIC, _way)
        self.relay = LaneRelay(SETTINGS, row, tables, kafka, self.reader, metrics, SystemClock(), SystemRandom())
        self.thaw()

    def freeze(self) -> None:
        self._reading.cancel()

    def thaw(self) -> None:
        self._reading = asyncio.create_task(self.reader.run())

    async def stop(self) -> None:
        await self.relay.stop()
        self.freeze()


async def _way(ask: Callable[[], Any]) -> Any:
    await asyncio.sleep(0)
    return ask()


async def _relayed(backend: Backend, process: Process, saga: str) -> None:
    """This saga, and its place is noted in the database."""
    await backend.commit(start(saga))
    await backend.commit(end(saga, 2))
    assert isinstance(backend.store, MemoryStore)
    last = backend.store.database.journal.last(key(saga))
    relay, tables = process.relay, backend.store.mirror()
    await eventually(lambda: relay.relayed is not None and relay.relayed.position >= last.position)
    assert relay.relayed is not None
    await tables.relayed(TOPIC, {LANE: (relay.lane.start_id, relay.relayed)})


async def test_a_relay_that_wakes_up_behind_a_purge_does_not_stop_the_lane_of_its_successor() -> None:
    backend = memory_backend()
    await backend.open()
    await backend.store.create_definition(definition(), 1_000, 10_000)
    assert isinstance(backend.store, MemoryStore)
    tables, broker = backend.store.mirror(), Broker(asyncio.get_running_loop().call_later)
    first, second = Process(tables, broker), Process(tables, broker)
    await first.start()
    await _relayed(backend, first, "a")
    first.freeze()
    await second.start(dead=first.relay_id)
    await _relayed(backend, second, OTHER)
    assert (await backend.store.purge(None, SagaFilter(), timedelta(0), 10, dry_run=False)).count == 1
    first.thaw()
    await eventually(lambda: first.relay.done)
    assert (await tables.lanes(TOPIC))[LANE].fault == ""
    await first.stop()
    await second.stop()
