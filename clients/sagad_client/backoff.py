"""How often, and when, a call is made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential back-off with full jitter; what the server says by RetryInfo goes first.

    Raises:
        ValueError: attempts are fewer than 1, or a pause is negative, or the multiplier is not in 1-10.
    """

    attempts: int = 10
    """Calls in all, the first one included; of a watch: in a row without a message."""
    initial_s: float = 0.1
    """Bound of the first pause, in seconds."""
    max_s: float = 5.0
    """Largest pause, in seconds; RetryInfo may ask for a longer one."""
    multiplier: float = 2.0
    """Growth of the bound from pause to pause."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.initial_s < 0 or self.max_s < 0 or not 1 <= self.multiplier <= 10:
            raise ValueError(f"attempts are at least 1, pauses not negative, the multiplier is 1-10: {self}")

    def pause_s(self, failures: int, retry_after_s: float | None, random: Callable[[], float]) -> float:
        """The pause after so many failed calls (from 1), in seconds; `random` gives numbers from 0 to 1."""
        if retry_after_s is not None:
            # The jitter keeps all those from coming back at once who were told the same.
            return retry_after_s + random() * self.initial_s
        # The exponent is bounded, or the power overflows long before anybody has so much patience.
        bound = min(self.max_s, self.initial_s * self.multiplier ** min(failures - 1, 64))
        return random() * bound
