"""The waits of sagas in memory: back-offs, completion timeouts and deadlines."""

from collections.abc import Callable

from sagad_server.domain.inputs import DeadlinePassed, Input, WaitOver
from sagad_server.engine.active import ActiveSaga
from sagad_server.engine.ports import Clock
from sagad_server.engine.waits import WAITING


class Timers:
    """Says of each wait when it is over."""

    def __init__(self, clock: Clock, over: Callable[[ActiveSaga, Input], None]) -> None:
        self._clock = clock
        self._over = over

    def arm_all(self, active: ActiveSaga) -> None:
        """Goes on with every wait where it was."""
        now_s = self._clock.monotonic()
        for index, step in enumerate(active.saga.steps):
            if step.state in WAITING and index not in active.timers:
                left_ms = step.delay_ms - active.elapsed_ms(step.changed_revision, now_s)
                self.arm(active, index, max(0, left_ms))
        self.arm_deadline(active)

    def arm(self, active: ActiveSaga, index: int, delay_ms: int) -> None:
        """The wait of one step."""
        revision = active.saga.steps[index].changed_revision

        def over() -> None:
            active.timers.pop(index, None)
            elapsed_ms = active.elapsed_ms(active.saga.steps[index].since_revision, self._clock.monotonic())
            self._over(active, WaitOver(index, revision, elapsed_ms))

        active.timers[index] = self._clock.call_at(self._clock.monotonic() + delay_ms / 1000, over)

    def arm_deadline(self, active: ActiveSaga) -> None:
        """The saga's timeout, as long as it means anything."""
        timeout_ms = active.saga.timeout_ms
        if timeout_ms is None or active.saga.compensating or active.saga.ended:
            return

        def passed() -> None:
            active.deadline = None
            self._over(active, DeadlinePassed())

        if active.deadline is not None:
            active.deadline.cancel()
        now_s = self._clock.monotonic()
        left_ms = timeout_ms - active.elapsed_ms(1, now_s)
        active.deadline = self._clock.call_at(now_s + max(0, left_ms) / 1000, passed)
