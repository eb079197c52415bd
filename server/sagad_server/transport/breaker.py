"""The circuit breaker: a participant that does not answer is asked whether it is back, and not called until then.

Source: M. Nygard, "Release It!", 2007.
"""

from enum import IntEnum

from sagad_server.domain.inputs import Failed, Outcome

THRESHOLD = 16
"""Failures in a row. More than the attempts of one step (1 + 10 retries): a saga alone exhausts its retries first."""
_NO_CONNECTION = frozenset({"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"})


class BreakerState(IntEnum):
    """The numbers are those of sagad.v1.BreakerState."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


def is_no_connection(code: str) -> bool:
    """Whether a gRPC code says that nobody has answered."""
    return code in _NO_CONNECTION


class Breaker:
    """Counts the failures in a row. CLOSED -> OPEN -> (it answers Describe) HALF_OPEN -> (it answers a call) CLOSED."""

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self._failures = 0
        self._trial_is_free = False

    @property
    def lets_through(self) -> bool:
        """Whether a call may be made now."""
        return self.state is BreakerState.CLOSED or (self.state is BreakerState.HALF_OPEN and self._trial_is_free)

    def handed_over(self) -> None:
        """A call is made."""
        assert self.lets_through
        self._trial_is_free = False

    def ended(self, outcome: Outcome) -> None:
        """A call has ended."""
        if not (isinstance(outcome, Failed) and is_no_connection(outcome.code)):
            self._failures = 0
            self.state = BreakerState.CLOSED
            return
        self._failures += 1
        if self._failures >= THRESHOLD or self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN

    def reachable(self) -> None:
        """The participant has answered Describe."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN
            self._trial_is_free = True

    def try_another(self) -> None:
        """The call that tries takes its time: so that all others need not wait for it."""
        self._trial_is_free = self.state is BreakerState.HALF_OPEN
