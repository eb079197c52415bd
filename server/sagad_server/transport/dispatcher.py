"""Which call of one participant may go when. No I/O: who carries the calls takes them here, and brings their ends."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from sagad_server.domain.inputs import NotSent, Outcome
from sagad_server.engine.ports import Call, Clock, Observer, Random, Timer
from sagad_server.transport.breaker import Breaker, BreakerState

MAX_QUEUED = 50_000
"""Their sagas are in memory anyway, and a call beyond costs two writes at each of its pauses."""
_FULL_RETRY_MS = (1_000, 30_000)
_HELD_RETRY_MS = 1_000
_MAX_HOLD_S = 30.0
_TICK_S = 1.0
_NOT_OURS = "this node's lease was over before the call could leave"
_SHUTTING_DOWN = "this node is shutting down"


def _nobody() -> None: ...


class Pace(Protocol):
    """How often calls may go, beside how many at once."""

    wake: Callable[[], None]
    """Called when it is worth asking again, after it has said no."""

    def take(self, wanted: int) -> bool:
        """Whether a call may go now. `wanted` could."""

    def give_back(self) -> None:
        """A call that was let go did not go."""


class Dispatcher:
    """At most `max_in_flight` calls at once; the rest wait their turn, first come, first served.

    While the breaker is not closed, a call waits as long as an attempt may take, at most 30 s, and is then not sent.
    So it is served soon when the participant is back, and its saga can turn round if that takes long. For its pace a
    call waits as long as it takes.
    """

    def __init__(
        self,
        name: str,
        max_in_flight: int,
        step_timeout_s: float,
        clock: Clock,
        random: Random,
        observer: Observer,
        pace: Pace | None = None,
    ) -> None:
        """`pace` None: calls may go as often as they like."""
        self.breaker = Breaker()
        self.in_flight = 0
        self.wake: Callable[[], None] = _nobody
        """Called when there may be something to take."""
        self.on_open: Callable[[], None] = _nobody
        """Called when the breaker has opened: ask the participant until it answers, and then call `reachable`."""
        self.on_idle: Callable[[], None] = _nobody
        """Called when no call is in flight any more."""
        self._name = name
        self._max_in_flight = max_in_flight
        self._step_timeout_s = step_timeout_s
        self._clock = clock
        self._random = random
        self._observer = observer
        self._pace = pace
        if pace is not None:
            pace.wake = lambda: self.wake()
        self._queue: deque[tuple[Call, float]] = deque()
        """With the time since when each waits."""
        self._opened_s = 0.0
        self._tick: Timer | None = None
        self._draining = False

    @property
    def queued(self) -> int:
        return len(self._queue)

    def timeout_s(self, call: Call) -> float:
        """Of an attempt, from its hand-over."""
        return call.timeout_ms / 1000 if call.timeout_ms else self._step_timeout_s

    def send(self, call: Call) -> None:
        """Queues the call, unless that is in vain."""
        if self._draining:
            self._not_sent_soon(call, NotSent(_SHUTTING_DOWN))
        elif len(self._queue) >= MAX_QUEUED:
            least, most = _FULL_RETRY_MS
            pause_ms = int(least + (most - least) * self._random.random())
            text = f"participant {self._name!r} is too slow: {MAX_QUEUED} calls of this node wait for it"
            self._not_sent_soon(call, NotSent(text, pause_ms))
        else:
            self._queue.append((call, self._clock.monotonic()))
            self.wake()

    def take(self) -> Call | None:
        """The next call, if one may go: it is handed over now."""
        while self._queue and self.in_flight < self._max_in_flight and self.breaker.lets_through:
            if self._pace is not None and not self._pace.take(self._could_go):
                return None
            call, _ = self._queue.popleft()
            if call.may_start(call):
                self.breaker.handed_over()
                self.in_flight += 1
                return call
            self._did_not_go()
            self._not_sent_soon(call, NotSent(_NOT_OURS, _HELD_RETRY_MS))
        return None

    @property
    def _could_go(self) -> int:
        return min(len(self._queue), self._max_in_flight - self.in_flight)

    def _did_not_go(self) -> None:
        if self._pace is not None:
            self._pace.give_back()

    def put_back(self, call: Call) -> None:
        """It was taken, and did not leave: no attempt. It is the next one again."""
        self._did_not_go()
        self._one_less()
        if self._draining:
            self._not_sent_soon(call, NotSent(_SHUTTING_DOWN))
        else:
            self._queue.appendleft((call, self._clock.monotonic()))
            self.wake()

    def ended(self, call: Call, outcome: Outcome, seconds: float) -> None:
        """A call that was taken has its outcome."""
        before = self.breaker.state
        self.breaker.ended(outcome)
        if self.breaker.state is not before:
            self._state_changed()
        self._observer.attempt_ended(call, outcome, seconds)
        self._one_less()
        if self._queue:
            self.wake()
        call.on_outcome(call, outcome)

    def reachable(self) -> None:
        """The participant has answered, if not a call."""
        if self.breaker.state is BreakerState.OPEN:
            self.breaker.reachable()
            self.wake()

    def drain(self) -> None:
        """Hands nothing over any more."""
        self._draining = True
        if self._tick is not None:
            self._tick.cancel()
        while self._queue:
            self._not_sent_soon(self._queue.popleft()[0], NotSent(_SHUTTING_DOWN))

    def _one_less(self) -> None:
        assert self.in_flight > 0
        self.in_flight -= 1
        if self.in_flight == 0:
            self.on_idle()

    def _not_sent_soon(self, call: Call, outcome: NotSent) -> None:
        self._clock.call_at(self._clock.monotonic(), lambda: call.on_outcome(call, outcome))

    def _state_changed(self) -> None:
        if self._draining:
            return
        if self.breaker.state is BreakerState.OPEN:
            self._opened_s = self._clock.monotonic()
            self.on_open()
        if self._tick is None and self.breaker.state is not BreakerState.CLOSED:
            self._set_tick()

    def _set_tick(self) -> None:
        self._tick = self._clock.call_at(self._clock.monotonic() + _TICK_S, self._every_second)

    def _every_second(self) -> None:
        self._tick = None
        if self._draining or self.breaker.state is BreakerState.CLOSED:
            return
        self._set_tick()
        self.breaker.try_another()
        self._let_go()
        self.wake()

    def _let_go(self) -> None:
        """Answers the calls that have waited for the breaker long enough."""
        now_s = self._clock.monotonic()
        kept: deque[tuple[Call, float]] = deque()
        gone: list[Call] = []
        for call, since_s in self._queue:
            waited_s = now_s - max(since_s, self._opened_s)
            if waited_s < min(self.timeout_s(call), _MAX_HOLD_S):
                kept.append((call, since_s))
            else:
                gone.append(call)
        self._queue = kept
        text = f"participant {self._name!r} does not answer: it is called when it is back"
        for call in gone:
            call.on_outcome(call, NotSent(text, _HELD_RETRY_MS, uses_retry=True))
