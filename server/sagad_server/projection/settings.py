"""What the projection is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionSettings:
    """Where events come from, and where documents go."""

    bootstrap_servers: str
    """Of Kafka: HOST:PORT, more after commas."""
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """TLS and SASL as aiokafka's clients take them; a secret is among them."""
    topic: str
    group_id: str
    """Of the processes that share the topic."""
    member: str
    """Name of this process among them: when it is started again, it has its share back at once."""
    mongo_url: str = field(repr=False)
    """A secret may be in it."""
    database: str
    marks_gaps: bool = False
    """Go on where events are missing."""
