"""The mirror in this world: each node has the real one, between the database and a simulated Kafka.

A part of the seeds has it. Its faults have a chance of their own.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from aiokafka.errors import ConcurrentTransactions, KafkaConnectionError, KafkaError
from prometheus_client import CollectorRegistry

from sagad.v1.saga_pb2 import SagaEvent
from sagad_server.mirror import lane, mirror, reader, session
from sagad_server.mirror.cursor import decode
from sagad_server.mirror.messages import Message
from sagad_server.mirror.metrics import MirrorMetrics
from sagad_server.mirror.mirror import Mirror
from sagad_server.mirror.settings import MirrorSettings, cursor_topic
from sagad_server.storage.memory_database import MemorySaga
from sagad_server.storage.mirror import LANES
from support.simulation.kafka import Broker, SimulatedKafka, State

if TYPE_CHECKING:
    from support.simulation.node import SimulatedNode
    from support.simulation.world import SimulatedWorld

ONE_SEED_IN = 5
TOPIC = "saga-events"
_MOST = {
    "request_lost": 0.03,
    "answer_lost": 0.03,
    "slow": 0.2,
    "late_marks": 0.2,
    "end_lost": 0.05,
    "stuck": 0.01,
    "open_commit": 0.3,
}
_FAST_S = 0.002
_PEACE_S = 3.0
_LONGEST_COMMIT_S = 1.5
_TABLES = (
    "enter",
    "renew",
    "relays",
    "bury",
    "leave",
    "lanes",
    "claim",
    "release",
    "relayed",
    "stop",
    "lag",
    "oldest_transaction_s",
    "read",
    "first_payloads",
)


class EndLostError(KafkaError):
    """The broker died at the end of a transaction, and the relay gives up. That it would hear of a success later, and
    Kafka abort the transaction all the same, is a fault that no relay could heal."""


class MirroredTopic:
    """Kafka with all that may befall it, and what an onlooker sees there."""

    def __init__(self, world: "SimulatedWorld", seed: int) -> None:
        self._world = world
        self._chance = chance = Random(seed)
        self._shares = {name: most * chance.choice([0.0, 0.3, 1.0]) for name, most in _MOST.items()}
        self._every_s = chance.choice([2.0, 5.0, 100.0])
        self._away = False
        self._end_lost = False
        """Of the request that the broker has before it."""
        self._cut_off: dict[str, None] = {}
        """Names of nodes."""
        self.broker = Broker(world.loop.call_later)
        self.broker.marks_after_s = lambda: chance.random() if self.strikes("late_marks") else 0.0
        self.broker.loses_end = self._loses_end
        self.broker.on_append = self._on_append
        self.broker.on_init = self._on_init
        self._opened_s = 0.0
        """When a lane was opened the last time."""

    def strikes(self, fault: str) -> bool:
        return not self._world.sky.calm and self._chance.random() < self._shares[fault]

    def _loses_end(self) -> bool:
        self._end_lost = self.strikes("end_lost")
        return self._end_lost

    # -- faults

    async def disturb(self) -> None:
        """Kafka goes away, or a node does not reach it, until cancelled."""
        chance, call_later = self._chance, self._world.loop.call_later
        while True:
            await asyncio.sleep(self._every_s * chance.random())
            seconds = chance.choice([0.3, 2.0, 12.0])
            if chance.random() < 0.5:
                self._away = True
                self._world.note("kafka away", seconds)
                call_later(seconds, self._back)
            else:
                name = chance.choice(list(self._world.nodes))
                self._cut_off[name] = None
                self._world.note("kafka cut off", name, seconds)
                call_later(seconds, self._cut_off.pop, name, None)

    def _back(self) -> None:
        self._away = False

    def clear_up(self) -> None:
        self._away, self._cut_off = False, {}

    def open_commit(self) -> int:
        """The id of a transaction in the database that has begun; what is committed `within` it may come late. 0: it
        begins with its commit."""
        if not self.strikes("open_commit"):
            return 0
        journal = self._world.database.journal
        xid = journal.open()
        self._world.loop.call_later(_LONGEST_COMMIT_S, journal.roll_back, xid)
        return xid

    # -- the way

    async def ask(self, node: "SimulatedNode", request: Callable[[], Any]) -> Any:
        """Again and again, until it is answered."""
        while True:
            try:
                return await self._ask_once(node, request)
            except (KafkaConnectionError, ConcurrentTransactions):
                await node.clock.sleep(0.1 + 0.2 * self._chance.random())

    async def _ask_once(self, node: "SimulatedNode", request: Callable[[], Any]) -> Any:
        loop, gate = self._world.loop, node.gate
        answer: asyncio.Future[Any] = loop.create_future()

        def tell(result: Any, error: Exception | None) -> None:
            if not answer.done():
                answer.set_result(result) if error is None else answer.set_exception(error)

        def arrive() -> None:
            result, error = None, None
            if self._away or node.name in self._cut_off or self.strikes("request_lost"):
                error = KafkaConnectionError("not reached")
            else:
                self._end_lost = False
                try:
                    result = request()
                except KafkaError as refused:
                    error = refused
                if self._end_lost:
                    error = EndLostError("the broker died")
                elif self.strikes("answer_lost"):
                    error = KafkaConnectionError("no answer")
            loop.call_later(self._delay_s(), gate, tell, result, error)

        gate(loop.call_later, self._delay_s(), arrive)
        return await answer

    def _delay_s(self) -> float:
        most_s = 15.0 if self.strikes("stuck") else 0.5 if self.strikes("slow") else 0.0
        return _FAST_S + most_s * self._chance.random()

    # -- what an onlooker sees

    def _on_append(self, topic: str, messages: Any) -> None:
        self._world.note("kafka has", topic, messages[0].partition, len(messages))
        if topic == cursor_topic(TOPIC):
            place = decode(messages[0].value).mark.place
            if place.xid >= self._world.database.journal.xmin:
                self._world.history.mirror_faults.append(f"{place} went to Kafka, and what is before it was not final")

    def _on_init(self, transactional_id: str) -> None:
        self._world.note("opened", transactional_id)
        self._opened_s = self._world.loop.time()

    def rests(self) -> bool:
        """Whether each lane has found somebody who relays it, and as much is there as the journal has had."""
        return not self._is_fought_for() and self._has_all()

    def _is_fought_for(self) -> bool:
        return self._world.loop.time() - self._opened_s < _PEACE_S

    def _has_all(self) -> bool:
        states = [record.state for number in range(LANES) for record in self.broker.logs[TOPIC, number]]
        relayed = len(states) - states.count(State.ABORTED)
        return relayed >= sum(one.revision > 0 for one in self._world.history.applied)

    def purged(self, saga: MemorySaga) -> None:
        """What is purged must be in Kafka, for it is nowhere else."""
        key, uid = f"{saga.row.namespace}/{saga.row.saga_id}".encode(), saga.row.uid
        records = (record for number in range(LANES) for record in self.broker.logs[TOPIC, number])
        there = {
            dict(record.message.headers)["ce_id"]
            for record in records
            if record.message.key == key and record.state is not State.ABORTED
        }
        missing = [event.revision for event in saga.events if f"{uid}/{event.revision}".encode() not in there]
        if missing:
            self._world.history.mirror_faults.append(f"{key.decode()} is purged, and {missing} are not in Kafka")

    def look(self) -> None:
        """In the end."""
        if self._is_fought_for():
            self._world.history.mirror_faults.append("nodes still take lanes from each other")
        self._world.history.mirrored = self._committed()

    def _committed(self) -> list[tuple[int, SagaEvent]]:
        """What a reader of committed records sees, with the partitions."""
        self.broker.end_lost()
        messages: list[Message] = []
        for number in range(LANES):
            messages += self.broker.read((TOPIC, number), "read_committed")
        return [(message.partition, SagaEvent.FromString(message.value)) for message in messages]

    @contextmanager
    def logs(self) -> Iterator[None]:
        """What the mirror logs is part of the trace; what nobody but a bug can cause ends the run."""
        with ExitStack() as patched:
            for module in (lane, mirror, reader, session):
                patched.enter_context(patch.object(module, "log", _Log(self._world)))
            yield


class _Log:
    def __init__(self, world: "SimulatedWorld") -> None:
        self._world = world

    def info(self, event: str, **facts: object) -> None:
        self._world.note("mirror", event, *facts.values())

    warning = info

    def error(self, event: str, **facts: object) -> None:
        self._world.fail(AssertionError(f"{event}: {facts}"))

    def exception(self, event: str) -> None:
        self._world.fail(sys.exc_info()[1], event)


class NodeMirror:
    """The mirror of one node, which dies with it."""

    def __init__(self, world: "SimulatedWorld", node: "SimulatedNode", topic: MirroredTopic) -> None:
        settings = MirrorSettings(bootstrap_servers="", topic=TOPIC, relay_name=node.name, lease_s=4.0, interval_s=0.3)
        kafka = SimulatedKafka(topic.broker, TOPIC, partial(topic.ask, node))
        metrics = MirrorMetrics(CollectorRegistry())
        self._mirror = Mirror(settings, _tables(world, node), kafka, node.clock, node.random, metrics)
        self._running = world.loop.create_task(self._mirror.run())

    async def stop(self) -> None:
        """As a node does that is drained."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._mirror.stop()

    def kill(self) -> None:
        self._running.cancel()
        for relay in self._mirror._lanes.values():
            relay._task.cancel()


def _tables(world: "SimulatedWorld", node: "SimulatedNode") -> Any:
    """The database's, over the way that the node has to it."""
    real = world.database.mirror
    return SimpleNamespace(**{name: partial(node.store._read, getattr(real, name)) for name in _TABLES})
