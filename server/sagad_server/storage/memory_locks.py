"""The locks of a MemoryDatabase."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from sagad_server.storage.locks import Holder, LockId, LockRow
from sagad_server.storage.rows import Key

SHOWN = 10
MOST_COUNTED = 1_000


@dataclass(slots=True)
class MemoryLock:
    """What one saga has to do with one lock."""

    lock: LockId
    saga_id: str
    ticket: int
    fencing_token: int | None
    request_time: datetime
    take_time: datetime | None


class MemoryLocks:
    """Holders and tickets, in the order of tickets. `now` is the database's clock."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._rows: dict[LockId, list[MemoryLock]] = {}
        self._of: dict[Key, list[MemoryLock]] = {}
        self._tickets = count(1)
        self._tokens = count(1)

    def free(self, key: Key, names: Iterable[str]) -> bool:
        """Whether no other saga holds one of them or waits for it."""
        namespace, saga_id = key
        return all(row.saga_id == saga_id for name in names for row in self._rows.get((namespace, name), ()))

    def take(self, key: Key, names: Iterable[str]) -> dict[str, int]:
        """The fencing tokens."""
        for name in names:
            self._add(key, name, next(self._tokens))
        return self.tokens(key)

    def queue(self, key: Key, name: str) -> None:
        """Takes a ticket."""
        self._add(key, name, None)

    def _add(self, key: Key, name: str, token: int | None) -> None:
        now, lock = self._now(), (key[0], name)
        row = MemoryLock(lock, key[1], next(self._tickets), token, now, None if token is None else now)
        assert token is None or _holder(self._rows.get(lock, ())) is None, f"two holders of {lock}"
        self._rows.setdefault(lock, []).append(row)
        self._of.setdefault(key, []).append(row)

    def give_back(self, key: Key) -> None:
        """All that a saga holds and waits for."""
        for row in self._of.pop(key, ()):
            rows = self._rows[row.lock]
            rows.remove(row)
            if not rows:
                del self._rows[row.lock]

    def awaited(self, key: Key) -> list[LockId]:
        """What a saga holds or waits for, and another waits for as well."""
        return [
            row.lock
            for row in self._of.get(key, ())
            if any(other.fencing_token is None and other is not row for other in self._rows[row.lock])
        ]

    def grant(self, locks: Sequence[LockId]) -> list[Holder]:
        """See `Store.grant`."""
        holders = []
        for lock in sorted(set(locks)):
            rows: Sequence[MemoryLock] = self._rows.get(lock, ())
            holder = _holder(rows)
            granted = holder is None and bool(rows)
            if granted:
                holder = rows[0]
                holder.fencing_token, holder.take_time = next(self._tokens), self._now()
            if holder is not None:
                assert holder.fencing_token is not None
                holders.append(Holder(lock, holder.saga_id, holder.fencing_token, granted))
        return holders

    def tokens(self, key: Key) -> dict[str, int]:
        """Those of the locks that a saga holds, by name."""
        rows = self._of.get(key, ())
        return {row.lock[1]: row.fencing_token for row in rows if row.fencing_token is not None}

    def of(self, key: Key) -> list[LockRow]:
        """See `Store.locks`."""
        return [self._shown(row) for row in sorted(self._of.get(key, ()), key=lambda row: row.lock)]

    def _shown(self, row: MemoryLock) -> LockRow:
        rows = self._rows[row.lock]
        holder = _holder(rows)
        waiting = [other.saga_id for other in rows if other.fencing_token is None]
        return LockRow(
            row.lock[1],
            row.ticket,
            row.fencing_token,
            row.request_time,
            row.take_time,
            "" if holder is None else holder.saga_id,
            waiting[:SHOWN],
            min(len(waiting), MOST_COUNTED),
        )

    def all(self) -> Mapping[LockId, list[MemoryLock]]:
        """Every row, for those who check."""
        return self._rows


def _holder(rows: Iterable[MemoryLock]) -> MemoryLock | None:
    return next((row for row in rows if row.fencing_token is not None), None)
