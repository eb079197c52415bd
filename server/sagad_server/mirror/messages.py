"""Events as Kafka's consumers get them: keys, CloudEvents headers (binary mode), protobuf or JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf import json_format

from sagad.storage.v1.storage_pb2 import PayloadRecord
from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.events import readable_event
from sagad_server.storage.mirror import MirrorEvent
from sagad_server.storage.rows import Key

MAX_VALUE_BYTES = 900_000
"""Kafka takes about 1 MiB. What is larger goes without its payloads."""
EVENT_TYPE = b"sagad.v1.SagaEvent"
TRACEPARENT = "traceparent"


class Message(NamedTuple):
    """One record."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    time_ms: int | None
    """None: when it is sent."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Makes records of events."""

    settings: MirrorSettings

    def encode(self, event: MirrorEvent, traceparent: str) -> Message:
        row, settings = event.row, self.settings
        key = f"{row.namespace}/{row.saga_id}".encode()
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{event.uid}/{row.revision}".encode()),
            ("ce_source", settings.source.encode()),
            ("ce_type", EVENT_TYPE),
            ("ce_subject", key),
            ("ce_time", row.time.isoformat().encode()),
            ("content-type", b"application/json" if settings.json else b"application/protobuf"),
        ]
        if traceparent:
            headers.append((TRACEPARENT, traceparent.encode()))
        partition = event.relay_partition % settings.partitions
        return Message(partition, key, self._value(event), headers, int(row.time.timestamp() * 1000))

    def _value(self, event: MirrorEvent) -> bytes:
        value = self._encoded(event, full=self.settings.payloads)
        if len(value) > MAX_VALUE_BYTES and self.settings.payloads:
            return self._encoded(event, full=False)
        return value

    def _encoded(self, event: MirrorEvent, *, full: bool) -> bytes:
        message = readable_event(event.row, event.definition_id, event.version, full=full)
        message.uid = str(event.uid)
        message.labels.update(event.labels)
        if not self.settings.json:
            return message.SerializeToString()
        return json_format.MessageToJson(message, indent=None).encode()


class Traceparents:
    """W3C trace contexts from sagas' metadata, as far as they are known: a bounded memory."""

    def __init__(self, bound: int = 10_000) -> None:
        self._bound = bound
        self._known: dict[Key, str] = {}

    def learn(self, key: Key, first_payload: bytes) -> str:
        """From what StartSaga brought."""
        # Most sagas have none: no message is built for those.
        found = TRACEPARENT.encode() in first_payload
        value = PayloadRecord.FromString(first_payload).metadata.get(TRACEPARENT, "") if found else ""
        self._known.pop(key, None)
        self._known[key] = value
        if len(self._known) > self._bound:
            del self._known[next(iter(self._known))]
        return value

    def get(self, key: Key) -> str:
        return self._known.get(key, "")

    def unknown(self, events: list[MirrorEvent]) -> Iterator[Key]:
        """The sagas of which the first event has not passed here lately."""
        begun: set[Key] = set()
        for event in events:
            key = event.row.namespace, event.row.saga_id
            if event.row.revision == 1:
                begun.add(key)
            elif key not in self._known and key not in begun:
                begun.add(key)
                yield key

    def learn_all(self, events: list[MirrorEvent], others: Mapping[Key, bytes]) -> None:
        """What a page tells, and what was looked up of sagas whose first event is not in it."""
        for key, payload in others.items():
            self.learn(key, payload)
        for event in events:
            if event.row.revision == 1:
                self.learn((event.row.namespace, event.row.saga_id), event.row.payload)
