"""The parameters of the writer's statements: a batch as one array for each column."""

import json
from collections.abc import Sequence
from typing import TypeVar

from sagad_server.storage.mirror import relay_partition
from sagad_server.storage.writes import Write

T = TypeVar("T")


def advance_arrays(writes: Sequence[Write]) -> list[Sequence[object]]:
    """Parameters $3 to $18, for existing sagas."""
    assert all(write.epoch - write.guard_epoch in (0, 1) for write in writes), "a take-over adds one to the epoch"
    return [
        [write.key[0] for write in writes],
        [write.key[1] for write in writes],
        [write.revision for write in writes],
        [write.guard_epoch for write in writes],
        _sparse([write.epoch != write.guard_epoch for write in writes]),
        [write.state for write in writes],
        [write.cause for write in writes],
        [write.body for write in writes],
        [write.event for write in writes],
        *_payloads_and_partitions(writes),
        *_waits_and_ends(writes),
    ]


def start_arrays(writes: Sequence[Write]) -> list[Sequence[object]]:
    """Parameters $19 to $39, for new sagas."""
    assert all(write.revision == 1 for write in writes), "a new saga begins with revision 1"
    news = [write.new for write in writes if write.new]
    recipes = {recipe: number for number, recipe in enumerate(sorted({_recipe(write) for write in writes}), start=1)}
    return [
        [write.key[0] for write in writes],
        [write.key[1] for write in writes],
        [write.state for write in writes],
        [write.cause for write in writes],
        [write.body for write in writes],
        [write.event for write in writes],
        *_payloads_and_partitions(writes),
        *_waits_and_ends(writes),
        [write.epoch for write in writes],
        [new.uid for new in news],
        [recipes[_recipe(write)] for write in writes],
        [json.dumps(dict(new.labels)) if new.labels else "{}" for new in news],
        [new.request_hash for new in news],
        *([recipe[place] for recipe in recipes] for place in range(3)),
    ]


def lock_arrays(writes: Sequence[Write], new: Sequence[Write], old: Sequence[Write]) -> list[Sequence[object]]:
    """Parameters $40 to $47, for what takes, queues for or gives back locks. Who queues does so in the order of the
    batch, `writes`, and not of keys."""
    takes = [(place, *write.key, name) for place, write in enumerate(new, start=1) for name in write.takes]
    queues = [(*write.key, write.queues_for) for write in writes if write.queues_for]
    return [
        *([row[column] for row in takes] for column in range(4)),
        *([row[column] for row in queues] for column in range(3)),
        [place for place, write in enumerate(old, start=1) if write.gives_back],
    ]


def has_locks(write: Write) -> bool:
    """Whether the write takes, queues for or gives back locks."""
    return bool(write.takes or write.queues_for or write.gives_back)


def _payloads_and_partitions(writes: Sequence[Write]) -> list[Sequence[object]]:
    return [
        _sparse([write.payload or None for write in writes]),
        [relay_partition(*write.key) for write in writes],
    ]


def _waits_and_ends(writes: Sequence[Write]) -> list[Sequence[object]]:
    return [
        _sparse([write.wake_after_ms for write in writes]),
        _sparse([write.parking_mask for write in writes]),
        _sparse([write.category for write in writes]),
        _sparse([write.ended for write in writes]),
        _sparse([write.release for write in writes]),
    ]


def _recipe(write: Write) -> tuple[str, str, str]:
    assert write.new is not None
    return write.key[0], write.new.definition_id, write.new.version


def _sparse(column: list[T]) -> list[T]:
    """Empty if no write has anything there: it is not sent, and the statement sees nulls."""
    return column if any(column) else []
