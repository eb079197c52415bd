"""The resource locks of this node's sagas.

Who holds a lock, and who waits for it since when, are rows of the store: taken in the write that starts a saga or puts
it into the queue, given back in the write that ends it. Here is only known which sagas of this node wait, so that they
hear of it; to lose that costs time and nothing else, since it is looked up again and again.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any

from sagad_server.domain.errors import Unavailable
from sagad_server.domain.inputs import LockGranted
from sagad_server.domain.saga import Saga
from sagad_server.engine.active import ActiveSaga
from sagad_server.engine.ports import Clock, Random
from sagad_server.storage.locks import Holder, LockId
from sagad_server.storage.rows import Key
from sagad_server.storage.store import Store

_LOOK_EVERY_S = 0.25
"""For what other nodes have given back, where nobody tells of it."""
_LOOK_WHEN_TOLD_S = 3.0
"""Where somebody does: he may die before he has told, and what he tells may be lost."""
_MOST_AT_ONCE = 500


class Locks:
    """Passes on what is given back, and tells the sagas that have waited."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        random: Random,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        on_granted: Callable[[ActiveSaga, LockGranted], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._spawn = spawn
        self._on_granted = on_granted
        self.on_passed: Callable[[Sequence[LockId]], None] | None = None
        """Hears of locks that have passed to sagas of other nodes."""
        self.told: Callable[[], bool] = lambda: False
        """Whether `wake` is called, as a rule, when a lock has passed to a saga of this node."""
        self._held: dict[LockId, Key] = {}
        """By sagas of this node, as far as it knows; also those that are just about to take it."""
        self._waiting: dict[LockId, dict[Key, tuple[int, ActiveSaga]]] = {}
        """With the number of the wait: an answer that was asked for before says nothing about it."""
        self._waits = 0
        self._asked: dict[LockId, None] = {}
        self._asks = False
        self._looks = False
        self._look_at_s = clock.monotonic()
        """When to look for all, though somebody tells."""
        self._looked = 0
        """Waits up to this number have been looked for since they began."""

    @property
    def waiting(self) -> int:
        """How many sagas of this node wait."""
        return sum(len(sagas) for sagas in self._waiting.values())

    def reserve(self, saga: Saga) -> bool:
        """Before a saga takes its locks with its first transition. False: it is known that one of them is not free."""
        key = (saga.namespace, saga.saga_id)
        locks = [(saga.namespace, name) for name in saga.locks]
        if any(lock in self._held or lock in self._waiting for lock in locks):
            return False
        self._held.update(dict.fromkeys(locks, key))
        return True

    def follow(self, active: ActiveSaga) -> None:
        """A saga with locks is in memory, or has moved on."""
        saga, namespace = active.saga, active.key[0]
        self.forget(active)
        if saga.ended:
            self.wake((namespace, name) for name in saga.locks)  # who waits elsewhere, the store knows: see `Committed`
            return
        for name in saga.lock_tokens:
            self._held[namespace, name] = active.key
        if saga.waits_for_lock and not saga.at_rest:
            lock = (namespace, saga.waits_for_lock)
            self._waits += 1
            self._waiting.setdefault(lock, {})[active.key] = (self._waits, active)
            self._look()
            if lock not in self._held:  # else its holder, whose end is known here, asks
                self.ask([lock])

    def forget(self, active: ActiveSaga) -> None:
        """It leaves memory. What it held it may hold still."""
        key = active.key
        for name in active.saga.locks:
            lock = (key[0], name)
            if self._held.get(lock) == key:
                del self._held[lock]
            if key in self._waiting.get(lock, ()):
                self._remove_waiting(lock, key)

    def wake(self, locks: Iterable[LockId]) -> None:
        """Somebody says that these have passed on."""
        self.ask([lock for lock in locks if lock in self._waiting])

    def ask(self, locks: Iterable[LockId]) -> None:
        """Has the store give these to who is next, and looks who holds them."""
        self._asked.update(dict.fromkeys(locks))
        if self._asked and not self._asks:
            self._asks = True
            self._spawn(self._ask())

    async def _ask(self) -> None:
        try:
            while self._asked:
                locks = list(islice(self._asked, _MOST_AT_ONCE))
                for lock in locks:
                    del self._asked[lock]
                known = self._waits
                self._tell(await self._store.grant(locks), known)
        except Unavailable:
            self._look()  # what nobody here waits for, others ask for
        finally:
            self._asks = False

    def _tell(self, holders: Sequence[Holder], known: int) -> None:
        passed = []
        for holder in holders:
            namespace = holder.lock[0]
            number, active = self._waiting.get(holder.lock, {}).get((namespace, holder.saga_id), (0, None))
            if active is None:
                if holder.granted:
                    passed.append(holder.lock)
            elif number <= known:
                self._remove_waiting(holder.lock, active.key)
                self._held[holder.lock] = active.key
                self._on_granted(active, LockGranted(holder.lock[1], holder.fencing_token))
            else:
                self._asked[holder.lock] = None
        if passed and self.on_passed is not None:
            self.on_passed(passed)

    def _remove_waiting(self, lock: LockId, key: Key) -> None:
        waiting = self._waiting[lock]
        del waiting[key]
        if not waiting:
            del self._waiting[lock]

    def _look(self) -> None:
        """Looks again soon, as long as somebody waits."""
        if not self._looks and self._waiting:
            self._looks = True
            pause_s = _LOOK_EVERY_S * (0.75 + self._random.random() / 2)
            self._clock.call_at(self._clock.monotonic() + pause_s, self._look_now)

    def _look_now(self) -> None:
        self._looks = False
        now_s = self._clock.monotonic()
        if not self.told() or now_s >= self._look_at_s:
            self._look_at_s, self._looked = now_s + _LOOK_WHEN_TOLD_S, 0
        self.ask(lock for lock in self._waiting if lock not in self._held and self._newest(lock) > self._looked)
        self._looked = self._waits
        self._look()

    def _newest(self, lock: LockId) -> int:
        """The number of the last wait for it. Each is looked for once soon after it began: whoever gave the lock back
        at the same time has seen nobody wait, and told nobody."""
        number, _ = next(reversed(self._waiting[lock].values()))
        return number
