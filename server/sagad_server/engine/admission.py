"""Whether this node takes on new sagas. What it has taken on goes first: only starts are refused, or have to wait."""

from collections.abc import Callable

from sagad_server.domain.errors import ResourceExhausted
from sagad_server.engine.ports import Clock, Observer, Random
from sagad_server.engine.settings import Settings

_RETRY_AFTER_MS = 1000
"""The least; at most twice as long, so that those who were refused together do not come back together."""


class Admission:
    """Closed while memory is nearly full, and while transitions wait too long for their commit.

    The wait is that of the first transition of each batch, from its decision to its end. It grows with all that this
    node is short of - the database, the processor, the event loop - and not with what it waits for at participants, so
    a slow one does not close it. One slow commit says little; a queue that stays is overload: no batch has been quick
    for `overload_after_ms`. Nothing is refused below one batch of sagas, which a single commit takes along.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        random: Random,
        observer: Observer,
        held: Callable[[], int],
        idle: Callable[[], bool],
    ) -> None:
        """`held` counts the sagas in memory; `idle`: no transition waits for a commit."""
        self._settings = settings
        self._clock = clock
        self._random = random
        self._observer = observer
        self._held = held
        self._idle = idle
        self._late_after_s = settings.overload_after_ms / 1000
        self._quick_at_s = clock.monotonic()

    def waited(self, waited_s: float) -> None:
        """The first transition of a batch has waited so long for its end; 0 where none has waited."""
        if waited_s <= self._late_after_s:
            self._quick_at_s = self._clock.monotonic()

    @property
    def full(self) -> bool:
        """The last tenth of the memory is kept for sagas that wake up or are taken over."""
        most = self._settings.max_sagas_in_memory
        return self._held() >= most - most // 10

    @property
    def overloaded(self) -> bool:
        """Transitions wait too long for their commit."""
        if self._held() < self._settings.max_batch or self._idle():
            return False
        return self._clock.monotonic() - self._quick_at_s > self._late_after_s

    def refuse_if_overloaded(self) -> None:
        """Raises ResourceExhausted."""
        if self.overloaded:
            self._observer.start_refused("OVERLOADED")
            raise ResourceExhausted(
                f"transitions of this node's sagas wait longer than limits.overload_after"
                f" ({self._settings.overload_after_ms} ms) for their commit: try again later",
                reason="OVERLOADED",
                retry_after_ms=self._retry_after_ms(),
            )

    def refuse_if_full(self) -> None:
        """Raises ResourceExhausted."""
        if self.full:
            self._observer.start_refused("TOO_MANY_SAGAS")
            raise ResourceExhausted(
                f"this node drives {self._held()} sagas, and starts none above nine tenths of"
                f" limits.max_sagas_in_memory ({self._settings.max_sagas_in_memory}): try again later",
                reason="TOO_MANY_SAGAS",
                retry_after_ms=self._retry_after_ms(),
            )

    def _retry_after_ms(self) -> int:
        return int(_RETRY_AFTER_MS * (1 + self._random.random()))
