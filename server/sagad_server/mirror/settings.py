"""What the mirror is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorSettings:
    """Times are in seconds."""

    bootstrap_servers: str
    """Of Kafka: HOST:PORT, more after commas."""
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """TLS and SASL as aiokafka's clients take them; a secret is among them."""
    topic: str = "saga-events"
    partitions: int = 8
    """Of the topic: a power of 2 up to 64, so that a lane never shares one with another if there are 8 or more."""
    replication_factor: int = 0
    """Of topics that are made; 0: 3, or as many as there are brokers."""
    retention_s: float = 7 * 86_400
    """Of the topic, where it is made."""
    makes_topics: bool = True
    json: bool = False
    """Events are ProtoJSON instead of protobuf."""
    payloads: bool = False
    """Events have inputs and outputs."""
    source: str = "/sagad"
    """`source` of CloudEvents."""
    relay_name: str = "sagad"
    """Of this process."""
    lease_s: float = 8.0
    interval_s: float = 0.1
    """Between two transactions of a lane that has caught up."""


def cursor_topic(topic: str) -> str:
    """Where the places are kept: a compacted topic with a partition for each lane."""
    return f"{topic}-cursors"
