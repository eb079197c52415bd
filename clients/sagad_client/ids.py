"""Saga ids: UUIDs of version 7, which sort by their time (RFC 9562)."""

from __future__ import annotations

import os
import time
import uuid


def new_saga_id() -> str:
    """A fresh UUIDv7: 48 bits of milliseconds, 74 random bits."""
    millis = time.time_ns() // 1_000_000
    number = (millis & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76  # version
    number = number & ~(0x3 << 62) | 0x2 << 62  # variant
    return str(uuid.UUID(int=number))
