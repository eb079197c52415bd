"""Whether this node takes on new sagas. What it has taken on goes first: only starts are refused, or have to wait."""

from collections.abc import Callable
from contextvars import ContextVar

from sagad_server.domain.errors import ResourceExhausted, SagadError
from sagad_server.engine.ports import Clock, Observer, Random
from sagad_server.engine.settings import Settings

_RETRY_AFTER_MS = 1000
"""The least; at most twice as long, so that those who were refused together do not come back together."""


class Arrival:
    """A start on its way: since it came to this node, until it is durable or nothing comes of it."""

    __slots__ = ("_admission", "_begun", "_since_s")

    def __init__(self, admission: "Admission", since_s: float) -> None:
        self._admission: Admission | None = admission
        self._since_s = since_s
        self._begun = False

    def begin(self) -> None:
        """Its saga is on its way, also if the caller leaves: what becomes of it, `told` hears."""
        self._begun = True

    def call_ended(self, _: object = None) -> None:
        """Nothing comes of it, unless it has begun."""
        if not self._begun:
            self.leave()

    def told(self, result: object) -> None:
        """What the saga's callers are told once it is durable, or an error."""
        if not isinstance(result, SagadError) and self._admission is not None:
            self._admission.durable(self._since_s)
        self.leave()

    def leave(self) -> None:
        """It counts no longer. What is said twice counts once."""
        if self._admission is not None:
            self._admission.arriving -= 1
            self._admission = None


arrival: ContextVar[Arrival | None] = ContextVar("arrival", default=None)
"""Of the current call, where it was let in before it was read."""


class Admission:
    """Closed while memory is nearly full, and while starts wait too long to be durable.

    The wait begins when a start comes to this node. It grows with all that the node is short of - the database, the
    processor, the event loop - and not with what sagas wait for at participants, so a slow one does not close it. One
    start that is late says little; a queue that stays is overload: none has been durable in time for
    `overload_after_ms`. Nothing is refused while starts on their way would fill less than half of a commit: so, however
    late, as many are let in as become durable.
    """

    def __init__(
        self, settings: Settings, clock: Clock, random: Random, observer: Observer, held: Callable[[], int]
    ) -> None:
        """`held` counts the sagas in memory."""
        self._settings = settings
        self._clock = clock
        self._random = random
        self._observer = observer
        self._held = held
        self._late_after_s = settings.overload_after_ms / 1000
        self._in_time_at_s = clock.monotonic()
        self._tried_at_s = self._in_time_at_s
        self.arriving = 0
        """Starts on their way."""

    def enter(self) -> Arrival:
        """A start is let in, whatever it is: `overload` tells whether it should be."""
        now_s = self._clock.monotonic()
        if not self.arriving:
            self._in_time_at_s = now_s
        self.arriving += 1
        return Arrival(self, now_s)

    def durable(self, since_s: float) -> None:
        """A start is durable that has been on its way since then."""
        now_s = self._clock.monotonic()
        if now_s - since_s <= self._late_after_s:
            self._in_time_at_s = now_s

    @property
    def full(self) -> bool:
        """The last tenth of the memory is kept for sagas that wake up or are taken over."""
        most = self._settings.max_sagas_in_memory
        return self._held() >= most - most // 10

    @property
    def overloaded(self) -> bool:
        """Starts wait too long to be durable."""
        if self.arriving < max(1, self._settings.max_batch // 2):
            return False
        return self._clock.monotonic() - self._in_time_at_s > self._late_after_s

    def overload(self) -> ResourceExhausted | None:
        """Why one more start is refused; None if it may come."""
        if not self.overloaded or self.may_try():
            return None
        self._observer.start_refused("OVERLOADED")
        return ResourceExhausted(
            f"new sagas wait longer than limits.overload_after ({self._settings.overload_after_ms} ms) on this node"
            f" until they are durable: try again later",
            reason="OVERLOADED",
            retry_after_ms=self._retry_after_ms(),
        )

    def may_try(self) -> bool:
        """Whether one start may come in spite of overload, as one may now and then: by it the node finds that there is
        none, where those on their way only seem to be - their clients are slow, or gone - and nothing else is in time.
        """
        now_s = self._clock.monotonic()
        if self._tried_at_s <= self._in_time_at_s:  # the overload is new
            self._tried_at_s = now_s
        if now_s - self._tried_at_s <= self._late_after_s:
            return False
        self._tried_at_s = now_s
        return True

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
