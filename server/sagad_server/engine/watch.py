"""Followers of sagas: each gets the committed transitions of one saga, as they come, as long as it keeps up.

The engine publishes what this node commits. Where other nodes drive the saga, one read for all followers says which
sagas have moved, and those who follow them read the journal.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from sagad_server.domain.errors import OutOfRange, ResourceExhausted, Unavailable
from sagad_server.engine.active import ActiveSaga
from sagad_server.engine.ports import Clock
from sagad_server.storage.rows import EventRow, Key
from sagad_server.storage.store import Store

_SOON_S = 0.2
"""How soon a saga is looked at again once it has moved; each time that it has not, it takes twice as long."""
_SELDOM_S = 2.0
_AT_ONCE = 1_000
"""Sagas in one read."""
_MOST_FAILURES = 5


class Subscription:
    """The transitions of one saga since it was made. A reader that is too slow loses them and reads the journal
    instead."""

    def __init__(self, key: Key, bound: int) -> None:
        self.key = key
        self.stands_at = 0
        """The saga is durably at this revision at least. What was not published up to it is in the journal."""
        self.closed = False
        self._bound = bound
        self._events: deque[EventRow] = deque()
        self._error: Exception | None = None
        self._ready = asyncio.Event()

    def publish(self, event: EventRow) -> None:
        if len(self._events) >= self._bound:
            self._events.clear()  # the reader sees the gap in the revisions
        self._events.append(event)
        self.reach(event.revision)

    def reach(self, revision: int) -> None:
        """The saga is known to be durably at this revision."""
        self.stands_at = max(self.stands_at, revision)
        self._ready.set()

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._error = error
        self._ready.set()

    def close(self) -> None:
        """The node stops."""
        self.closed = True
        self._ready.set()

    def take(self) -> EventRow | None:
        """The oldest transition in hand."""
        return self._events.popleft() if self._events else None

    async def ready(self, revision: int) -> None:
        """Returns when the saga is beyond `revision`, or it is closed. Raises what it has failed with."""
        while self.stands_at <= revision and not self.closed:
            if self._error is not None:
                raise self._error.with_traceback(None)  # others are told the same
            self._ready.clear()
            await self._ready.wait()


@dataclass(slots=True)
class _Watched:
    """A saga, and those who follow it."""

    look_at_s: float = inf
    pause_s: float = _SOON_S
    followers: list[Subscription] = field(default_factory=list)

    def look_soon(self, now_s: float) -> None:
        self.look_at_s, self.pause_s = min(self.look_at_s, now_s + _SOON_S), _SOON_S

    def looked(self, now_s: float) -> None:
        self.look_at_s, self.pause_s = now_s + self.pause_s, min(2 * self.pause_s, _SELDOM_S)

    def reach(self, revision: int) -> None:
        for follower in self.followers:
            follower.reach(revision)


class Watches:
    """All subscriptions of this node."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        sagas: Mapping[Key, ActiveSaga],
        max_watches: int,
        bound: int,
    ) -> None:
        """`sagas` are those that this node drives."""
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._sagas = sagas
        self._max_watches = max_watches
        self._bound = bound
        self._by_key: dict[Key, _Watched] = {}
        self._looking = False
        self._failures = 0
        """Of looks, in a row."""
        self.count = 0

    def enter(self) -> None:
        """Counts one more, of whatever kind. Raises ResourceExhausted."""
        if self.count >= self._max_watches:
            raise ResourceExhausted(
                f"this node has {self.count} open watches, the most that limits.max_watches allows: try again later",
                reason="TOO_MANY_WATCHES",
                retry_after_ms=1000,
            )
        self.count += 1

    def leave(self) -> None:
        """Counts one less."""
        self.count -= 1

    def subscribe(self, key: Key) -> Subscription:
        """Raises ResourceExhausted."""
        self.enter()
        subscription = Subscription(key, self._bound)
        watched = self._by_key.setdefault(key, _Watched())
        watched.followers.append(subscription)
        watched.look_soon(self._clock.monotonic())
        if not self._looking:
            self._looking = True
            self._spawn(self._look_around())
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        followers = self._by_key[subscription.key].followers
        followers.remove(subscription)
        self.leave()
        if not followers:
            del self._by_key[subscription.key]

    def watched(self, key: Key) -> bool:
        return key in self._by_key

    def publish(self, event: EventRow) -> None:
        for follower in self._followers((event.namespace, event.saga_id)):
            follower.publish(event)

    def close(self) -> None:
        """Ends every stream: the node stops."""
        for watched in self._by_key.values():
            for follower in watched.followers:
                follower.close()

    async def _look_around(self) -> None:
        """For what other nodes have done, while somebody watches."""
        try:
            while self._by_key:
                due = self._due()
                for first in range(0, len(due), _AT_ONCE):
                    await self._look(dict(due[first : first + _AT_ONCE]))
                await self._clock.sleep(_SOON_S)
        finally:
            self._looking = False

    def _due(self) -> list[tuple[Key, int]]:
        """What is to be looked at now in the store, and the revision that all of its followers know of."""
        now_s, due = self._clock.monotonic(), []
        for key, watched in self._by_key.items():
            if watched.look_at_s > now_s:
                continue
            watched.looked(now_s)
            active = self._sagas.get(key)
            if active is not None and active.owned:
                watched.reach(active.saga.revision)  # what another node did before it came here was not published
            else:
                due.append((key, min(follower.stands_at for follower in watched.followers)))
        return due

    async def _look(self, seen: Mapping[Key, int]) -> None:
        try:
            moved = await self._store.moved(seen)
            self._failures = 0
        except Exception as error:  # noqa: BLE001 - it ends the streams, where it is told of, and not the node
            self._failures += 1
            if isinstance(error, Unavailable) and self._failures < _MOST_FAILURES:
                return  # they are looked at again
            for key in seen:
                for follower in self._followers(key):
                    follower.fail(error)
            return
        for key, revision in moved.items():
            if revision is not None:
                self._moved(key, revision)
            elif seen[key]:  # else somebody had not begun, and finds out by itself whether there is such a saga
                for follower in self._followers(key):
                    follower.fail(purged(key))

    def _moved(self, key: Key, revision: int) -> None:
        watched = self._by_key.get(key)
        if watched is not None:
            watched.look_soon(self._clock.monotonic())
            watched.reach(revision)

    def _followers(self, key: Key) -> list[Subscription]:
        watched = self._by_key.get(key)
        return watched.followers if watched is not None else []


def purged(key: Key) -> OutOfRange:
    return OutOfRange(f"saga {key[1]!r} is purged: only its end is known, not its events", reason="PURGED")
