"""What is in Kafka, by a consumer that knows nothing of the mirror, beside what is in the journal."""

import asyncio
import hashlib
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition
from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from sagad.storage.v1.storage_pb2 import EventRecord, PayloadRecord
from sagad.v1.saga_pb2 import SagaEvent
from sagad_server.mirror.kafka import AioKafka
from sagad_server.mirror.metrics import MirrorMetrics
from sagad_server.mirror.mirror import Mirror
from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.postgres import PostgresStore
from sagad_server.storage.writes import Batch
from sagad_server.system import SystemClock, SystemRandom
from support.processes import environment, free_port
from support.storage import start, step

JOURNAL = "SELECT namespace, saga_id, revision FROM sagad.event ORDER BY namespace, saga_id, revision"
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Record:
    """A committed record of the topic."""

    partition: int
    key: str
    value: bytes
    headers: dict[str, str]

    @property
    def event(self) -> SagaEvent:
        if self.headers["content-type"] == "application/json":
            return json_format.Parse(self.value, SagaEvent())
        return SagaEvent.FromString(self.value)

    @property
    def identity(self) -> Key:
        event = self.event
        return event.namespace, event.saga_id, event.revision


async def committed(bootstrap_servers: str, topic: str) -> list[Record]:
    """All that a reader of committed records sees now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    try:
        await consumer.start()
        partitions = [TopicPartition(topic, number) for number in sorted(await _partitions(consumer, topic))]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found = []
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                for record in itertools.chain(*(await consumer.getmany(timeout_ms=100)).values()):
                    headers = {name: value.decode() for name, value in record.headers}
                    found.append(Record(record.partition, record.key.decode(), record.value, headers))
        return found
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> Iterable[int]:
    await consumer._client._wait_on_metadata(topic)
    partitions: Iterable[int] = consumer.partitions_for_topic(topic)
    return partitions


async def journal(dsn: str) -> list[Key]:
    """What was committed in PostgreSQL, by saga and revision."""
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(JOURNAL)]
    finally:
        await connection.close()


def faults(records: Sequence[Record], expected: Sequence[Key]) -> list[str]:
    """What is missing, comes twice, is out of order or in a wrong partition."""
    found = []
    got = [record.identity for record in records]
    found += [f"missing: {one}" for one in sorted(set(expected) - set(got))]
    found += [f"not in the journal: {one}" for one in sorted(set(got) - set(expected))]
    if len(got) != len(set(got)):
        found.append(f"{len(got) - len(set(got))} come twice")
    last: dict[str, tuple[int, int]] = {}
    for record, (namespace, saga_id, revision) in zip(records, got, strict=True):
        if record.key != f"{namespace}/{saga_id}":
            found.append(f"key {record.key} of {namespace}/{saga_id}")
        partition, before = last.get(record.key, (record.partition, 0))
        if record.partition != partition or revision != before + 1:
            found.append(f"{record.key}: {revision} in {record.partition} after {before} in {partition}")
        last[record.key] = record.partition, revision
        digest = hashlib.sha256(f"{namespace}\0{saga_id}".encode()).digest()
        if int.from_bytes(digest[:8]) % 8 != record.partition:
            found.append(f"{record.key} in partition {record.partition}")
    return found


async def mirrored(bootstrap_servers: str, topic: str, dsn: str, timeout_s: float = 60) -> list[Record]:
    """The topic, as soon as it has all that the journal has; at the end of the time, as it then is."""
    give_up_at = asyncio.get_running_loop().time() + timeout_s
    while True:
        expected = await journal(dsn)
        records = await committed(bootstrap_servers, topic)
        if {record.identity for record in records} >= set(expected):
            break
        if asyncio.get_running_loop().time() > give_up_at:
            break
        await asyncio.sleep(0.1)
    assert not faults(records, expected), "\n".join(faults(records, expected)[:20])
    return records


async def write_sagas(store: PostgresStore, names: Sequence[str], revisions: int, metadata: dict[str, str]) -> None:
    """Sagas of so many transitions each, all sagas in each commit."""
    event = EventRecord(state=1, cause=2, actor="test").SerializeToString()
    first = PayloadRecord(metadata=metadata).SerializeToString()
    for revision in range(1, revisions + 1):
        writes = [
            start(name, event=event, payload=first) if revision == 1 else step(name, revision, event=event)
            for name in names
        ]
        written = await store.commit(Batch(uuid4(), sorted(writes, key=lambda write: write.key)))
        assert len(written.keys) == len(names)


@asynccontextmanager
async def running_mirror(settings: MirrorSettings, store: PostgresStore) -> AsyncIterator[Mirror]:
    """A mirror in this process."""
    metrics = MirrorMetrics(CollectorRegistry())
    mirror = Mirror(settings, store.mirror(), AioKafka(settings), SystemClock(), SystemRandom(), metrics)
    task = asyncio.create_task(mirror.run())
    try:
        yield mirror
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await mirror.stop()


class MirrorProcess:
    """`sagad mirror`, to be killed for real. `kafka`: its servers, or the whole section."""

    def __init__(self, folder: Path, dsn: str, kafka: str | Mapping[str, object], topic: str, name: str) -> None:
        self.name = name
        config = {
            "postgres": {"dsn": dsn},
            "http": {"address": f"127.0.0.1:{free_port()}"},
            "node": {"name": name, "lease": "1s"},
            "kafka": {"bootstrap_servers": kafka} if isinstance(kafka, str) else dict(kafka),
            "mirror": {"topic": topic, "interval": "20ms"},
        }
        self._config = folder / f"{name}.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self._log = folder / f"{name}.log"
        self.start()

    def start(self) -> None:
        """Another process of this name, whatever has become of the one before."""
        words = [sys.executable, "-m", "sagad_server.cli", "mirror", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self.child = subprocess.Popen(words, stdout=log, stderr=log, env=environment())

    def kill(self) -> None:
        """SIGKILL."""
        self.child.kill()
        self.child.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.child.terminate()
        return self.child.wait(60)

    def log(self) -> str:
        return self._log.read_text(errors="replace")
