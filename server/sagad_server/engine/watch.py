"""Followers of sagas: each gets the committed transitions of one saga, as they come, as long as it keeps up."""

import asyncio
from collections import deque

from sagad_server.domain.errors import ResourceExhausted
from sagad_server.storage.store import EventRow, Key


class Subscription:
    """The transitions of one saga since it was made. A reader that is too slow loses them and reads the journal
    instead."""

    def __init__(self, key: Key, bound: int) -> None:
        self.key = key
        self._bound = bound
        self._events: deque[EventRow] = deque()
        self._ready = asyncio.Event()
        self.closed = False

    def publish(self, event: EventRow) -> None:
        if len(self._events) >= self._bound:
            self._events.clear()  # the reader sees the gap in the revisions
        self._events.append(event)
        self._ready.set()

    def close(self) -> None:
        self.closed = True
        self._ready.set()

    def take(self) -> EventRow | None:
        """The oldest transition in hand."""
        return self._events.popleft() if self._events else None

    async def ready(self) -> None:
        """Returns when there is something to take, or it is closed."""
        while not self._events and not self.closed:
            self._ready.clear()
            await self._ready.wait()


class Watches:
    """All subscriptions of this node."""

    def __init__(self, max_watches: int, bound: int) -> None:
        self._max_watches = max_watches
        self._bound = bound
        self._by_key: dict[Key, list[Subscription]] = {}
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
        self._by_key.setdefault(key, []).append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        followers = self._by_key[subscription.key]
        followers.remove(subscription)
        self.leave()
        if not followers:
            del self._by_key[subscription.key]

    def watched(self, key: Key) -> bool:
        return key in self._by_key

    def publish(self, event: EventRow) -> None:
        for subscription in self._by_key.get((event.namespace, event.saga_id), ()):
            subscription.publish(event)

    def close(self) -> None:
        """Ends every stream: the node stops."""
        for followers in self._by_key.values():
            for subscription in followers:
                subscription.close()
