"""A lane's sessions, on a real Kafka and on the one that the simulation has in its place."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.errors import KafkaError, ProducerFenced
from support.mirror import committed
from support.simulation.kafka import Broker, SimulatedKafka

from sagad_server.mirror.cursor import Cursor
from sagad_server.mirror.kafka import AioKafka, Kafka
from sagad_server.mirror.messages import Message
from sagad_server.mirror.session import Session
from sagad_server.mirror.settings import MirrorSettings, cursor_topic
from sagad_server.storage.mirror import LANES, Mark, Place
from sagad_server.system import SystemClock

LANE = 3
START_ID = uuid4()


@dataclass
class Cluster:
    """A Kafka with the topics."""

    settings: MirrorSettings
    kafka: Kafka
    read: Callable[[], Awaitable[list[bytes]]]
    """The values that a reader of committed events sees."""

    def session(self) -> Session:
        return Session(self.settings, LANE, self.kafka, SystemClock())

    async def sees(self, values: list[bytes]) -> None:
        """In the end: a commit is answered a little before it shows."""
        async with asyncio.timeout(10):
            while await self.read() != values:  # noqa: ASYNC110 - nobody would tell
                await asyncio.sleep(0.05)

    async def end_offsets(self) -> list[int]:
        """Of committed places, and of all."""
        consumer = self.kafka.consumer
        async with consumer(LANE, "read_committed") as one, consumer(LANE, "read_uncommitted") as all_:
            return [await one.end_offset(), await all_.end_offset()]


@pytest.fixture(params=["simulated", "kafka"])
async def cluster(request: pytest.FixtureRequest) -> Any:
    if request.param == "simulated":
        settings = MirrorSettings(bootstrap_servers="")
        broker = Broker(asyncio.get_running_loop().call_later)

        async def way(ask: Callable[[], Any]) -> Any:
            await asyncio.sleep(0)
            return ask()

        async def read() -> list[bytes]:
            topic = settings.topic
            return [one.value for lane in range(LANES) for one in broker.read((topic, lane), "read_committed")]

        return Cluster(settings, SimulatedKafka(broker, settings.topic, way), read)

    settings = request.getfixturevalue("settings")

    async def read_real() -> list[bytes]:
        return [record.value for record in await committed(settings.bootstrap_servers, settings.topic)]

    real = AioKafka(settings)
    await real.ready()
    return Cluster(settings, real, read_real)


def messages(*values: bytes) -> list[Message]:
    return [Message(LANE, b"default/saga", value, [("content-type", b"application/json")], 0) for value in values]


def cursor(position: int) -> Cursor:
    return Cursor(START_ID, Mark(Place(1, position), uuid4(), "history"))


async def test_a_successor_finds_the_place_of_the_last_transaction_with_its_events(cluster: Cluster) -> None:
    first, second = cluster.session(), cluster.session()
    assert await first.open() is None
    await first.write(messages(b"1", b"2"), cursor(2))
    last = cursor(3)
    await first.write(messages(b"3"), last)
    await first.close()
    assert await second.open() == last
    await cluster.sees([b"1", b"2", b"3"])
    await second.close()


async def test_a_successor_ends_what_is_open_and_fences_its_predecessor(cluster: Cluster) -> None:
    first, second, place = cluster.session(), cluster.session(), cursor(1)
    await first.open()
    await first.write(messages(b"1"), place)
    producer = first._producer
    await producer.begin_transaction()
    await asyncio.gather(*await producer.send([(cluster.settings.topic, messages(b"lost"))]))
    assert await second.open() == place
    with pytest.raises(ProducerFenced):
        await producer.commit_transaction()
    await producer.stop(failed=True)
    await second.write(messages(b"2"), cursor(2))
    await cluster.sees([b"1", b"2"])
    await second.close()


async def test_a_predecessor_that_wakes_up_writes_nothing(cluster: Cluster) -> None:
    first, second = cluster.session(), cluster.session()
    await first.open()
    await first.write(messages(b"1"), cursor(1))
    await second.open()
    with pytest.raises(KafkaError):
        await first.write(messages(b"late"), cursor(9))
    await first.close()
    last = cursor(2)
    await second.write(messages(b"2"), last)
    await cluster.sees([b"1", b"2"])
    await second.close()
    third = cluster.session()
    assert await third.open() == last
    await third.close()


async def test_readers_of_committed_places_are_held_before_what_is_open(cluster: Cluster) -> None:
    first, second, place = cluster.session(), cluster.session(), cursor(1)
    await first.open()
    await first.write(messages(b"1"), place)
    producer = first._producer
    await producer.begin_transaction()
    open_place = Message(LANE, b"3", cursor(2).encode(), [], None)
    await asyncio.gather(*await producer.send([(cursor_topic(cluster.settings.topic), [open_place])]))
    until_open, until_end = await cluster.end_offsets()
    assert until_open < until_end
    assert await second.open() == place
    until_open, until_end = await cluster.end_offsets()
    assert until_open == until_end
    await producer.stop(failed=True)
    await second.close()


async def test_a_transaction_of_many_batches_keeps_its_order(cluster: Cluster) -> None:
    session = cluster.session()
    await session.open()
    values = [b"%d" % number * 200 for number in range(2_000)]  # about 1.5 MB, and 512 KiB go into a batch
    await session.write(messages(*values), cursor(1))
    await cluster.sees(values)
    await session.close()
