"""The pace of a participant's calls: none goes without a token, and none is refused for want of one."""

from collections.abc import Callable

from sagad_server.engine.ports import Clock
from sagad_server.guard.limit import Later, Limit, LimitObserver

_LOOK_AGAIN_S = 1.0
"""At the latest: others may give tokens back."""


class Pace:
    """As `transport.dispatcher` wants one."""

    def __init__(self, limit: Limit, clock: Clock, observer: LimitObserver) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._limit = limit
        self._clock = clock
        self._observer = observer
        self._asked = False
        self._waits = False

    def take(self, wanted: int) -> bool:
        """Whether a call may go now. If not, `wake` is called later."""
        if self._limit.take():
            self._waits = False
            return True
        if not self._asked:
            self._asked = True
            self._limit.ask(wanted, self._told)
        return False

    def give_back(self) -> None:
        """The call did not go."""
        self._limit.give_back()

    def _told(self, later: Later | None) -> None:
        if later is None:
            self._again()
        else:
            if not self._waits:
                self._waits = True
                self._observer.limited(self._limit.subject.kind)
            pause_s = min(later.pause_s, _LOOK_AGAIN_S)
            self._clock.call_at(self._clock.monotonic() + pause_s, self._again)

    def _again(self) -> None:
        self._asked = False
        self.wake()
