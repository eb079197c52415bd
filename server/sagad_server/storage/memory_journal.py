"""The journal of a MemoryDatabase."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from sagad_server.storage.journal import Cursor, JournalPage, JournalRow, journal_changed
from sagad_server.storage.mirror import LANES, relay_partition
from sagad_server.storage.rows import EventRow, Key, SagaRow

HISTORY = "memory"


@dataclass(slots=True, frozen=True)
class Entry:
    """An event at its place."""

    cursor: Cursor
    saga: SagaRow
    """The row itself, as it changes."""
    event: EventRow
    batch_id: UUID
    relay_partition: int
    parking_mask: int
    category: int


class MemoryJournal:
    """Events in the order of their transactions' ids. A transaction may be kept open, and then those that began later
    are there and cannot be read yet, as in PostgreSQL."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._lanes: list[list[Entry]] = [[] for _ in range(LANES)]
        self._last: dict[Key, Cursor] = {}
        """The last event of each saga."""
        self._xid = 0
        self._position = 0
        self._writing = 0
        """The transaction to which belongs what is appended."""
        self._resumed = 0
        self._open: dict[int, None] = {}
        self._purged: dict[str, Cursor] = {}
        """The last event of each namespace that was purged."""

    def open(self) -> int:
        """The id of a transaction that stays open until `within` it something begins, or it is rolled back."""
        self._xid += 1
        self._open[self._xid] = None
        return self._xid

    def roll_back(self, xid: int) -> None:
        """Does nothing if it has ended."""
        self._open.pop(xid, None)

    @contextmanager
    def within(self, xid: int) -> Iterator[None]:
        """What begins here belongs to this transaction and ends it, if it is still open."""
        self._resumed = xid
        try:
            yield
        finally:
            self._resumed = 0

    @property
    def xmin(self) -> int:
        """What belongs to this transaction, or to a later one, cannot be read yet."""
        return min(self._open, default=self._xid + 1)

    def begin(self) -> None:
        """What is appended from now on belongs to the next transaction."""
        if self._resumed in self._open:
            del self._open[self._resumed]
            self._writing = self._resumed
        else:
            self._xid += 1
            self._writing = self._xid

    def append(self, saga: SagaRow, event: EventRow, batch_id: UUID) -> None:
        self._position += 1
        cursor = Cursor(self._writing, self._position, HISTORY)
        partition = relay_partition(*saga.key)
        entry = Entry(cursor, saga, event, batch_id, partition, saga.parking_mask, saga.category)
        self._last[saga.key] = cursor
        for entries in (self._entries, self._lanes[partition % LANES]):
            insort(entries, entry, key=_cursor)

    def last(self, key: Key) -> Cursor:
        """Where the last event of a saga is."""
        return self._last[key]

    def end(self) -> Cursor:
        """See `Store.journal_end`."""
        last = [entry.cursor for entry in self._readable(self._entries)[-1:]]
        return max([Cursor(0, 0, HISTORY), *last, *self._purged.values()])

    def read(self, after: Cursor, limit: int) -> JournalPage:
        """See `Store.read_journal`."""
        entries = self._readable(self._entries)
        begin = bisect_right(entries, after, key=_cursor)
        is_known = after.xid == 0 or (begin > 0 and entries[begin - 1].cursor == after)
        if after.history != HISTORY and not is_known:
            raise journal_changed()
        found = entries[begin : begin + limit]
        cursor = found[-1].cursor if found else replace(after, history=HISTORY)
        purged = [namespace for namespace, last in self._purged.items() if last > after]
        more = begin + limit < len(entries)
        return JournalPage([_row(entry) for entry in found], cursor, more, purged)

    def lane(self, lane: int) -> list[Entry]:
        """All of a lane that can be read, in order."""
        return self._readable(self._lanes[lane])

    def _readable(self, entries: list[Entry]) -> list[Entry]:
        if not self._open:
            return entries
        return entries[: bisect_left(entries, self.xmin, key=lambda entry: entry.cursor.xid)]

    def purge(self, keys: Collection[Key]) -> None:
        """Deletes the events of these sagas."""
        for entry in self._entries:
            if entry.saga.key in keys:
                namespace = entry.saga.namespace
                self._purged[namespace] = max(entry.cursor, self._purged.get(namespace, entry.cursor))
        self._entries = [entry for entry in self._entries if entry.saga.key not in keys]
        self._lanes = [[entry for entry in lane if entry.saga.key not in keys] for lane in self._lanes]


def _cursor(entry: Entry) -> Cursor:
    return entry.cursor


def _row(entry: Entry) -> JournalRow:
    saga = entry.saga
    return JournalRow(
        cursor=entry.cursor,
        event=replace(entry.event, payload=b""),
        parking_mask=entry.parking_mask,
        category=entry.category,
        definition_id=saga.definition_id,
        version=saga.version,
        labels=saga.labels,
        create_time=saga.create_time,
        end_time=saga.end_time,
    )
