"""How much one node takes on."""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Settings:
    """Bounds of one node."""

    max_sagas_in_memory: int = 100_000
    max_batch: int = 512
    max_saga_payload_bytes: int = 1024 * 1024
    max_watches: int = 10_000
    watch_buffer: int = 256
    claim_batch: int = 200
    overload_after_ms: int = 250
    least_sleep_ms: int = 60_000
    """A saga that has nothing to do for longer leaves memory."""
