"""Sets of saga states."""

from __future__ import annotations

from sagad.v1 import saga_pb2

ENDED = frozenset({saga_pb2.SAGA_STATE_SUCCEEDED, saga_pb2.SAGA_STATE_COMPENSATED, saga_pb2.SAGA_STATE_ABANDONED})
"""The ends of a saga."""

SETTLED = ENDED | {saga_pb2.SAGA_STATE_PARKED}
"""The states in which nothing moves by itself."""
