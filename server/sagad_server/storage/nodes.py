"""The processes that drive sagas, as the database knows them."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID

from sagad_server.storage.rows import Key


class NodeState(IntEnum):
    """A node is LIVE from its registration until somebody, maybe itself, has declared it DEAD. That is for good."""

    LIVE = 1
    DEAD = 2


@dataclass(slots=True)
class Node:
    """This process as the database knows it since its last registration."""

    instance_id: UUID
    node_name: str
    incarnation: int
    suspects: list[Key]
    """The sagas that predecessors of the same name were loading or deciding when they died."""


@dataclass(slots=True)
class NodeRow:
    """A registration."""

    instance_id: UUID
    node_name: str
    incarnation: int
    state: int
    lease: int
    """Grows with every renewal."""
    address: str
    """Where other nodes reach it; empty until it is announced."""
    start_time: datetime
