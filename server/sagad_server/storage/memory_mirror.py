"""The mirror's tables in a MemoryDatabase."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid4

from sagad_server.storage.memory_journal import HISTORY, Entry, MemoryJournal
from sagad_server.storage.mirror import (
    BEGINNING,
    LANES,
    Lane,
    LaneLag,
    LanePage,
    Mark,
    MirrorEvent,
    Place,
    Relay,
    Start,
    relay_partition,
)
from sagad_server.storage.rows import Key


class MemoryMirror:
    """A MirrorStore."""

    def __init__(self, journal: MemoryJournal, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._now = now
        self._relays: dict[UUID, tuple[str, Relay]] = {}
        """With their topics."""
        self._lanes: dict[tuple[str, int], Lane] = {}

    async def enter(self, relay_id: UUID, topic: str, relay_name: str, *, replaces: bool) -> None:
        if replaces:
            here = [
                known for known, (of, relay) in self._relays.items() if (of, relay.relay_name) == (topic, relay_name)
            ]
            for known in here:
                del self._relays[known]
        self._relays[relay_id] = topic, Relay(relay_id, relay_name, 0)
        for lane in range(LANES):
            self._lanes.setdefault((topic, lane), Lane(topic, lane, None, uuid4(), Start.FIRST, False, BEGINNING, ""))

    async def renew(self, relay_id: UUID) -> bool:
        if relay_id not in self._relays:
            return False
        self._relays[relay_id][1].lease += 1
        return True

    async def relays(self, topic: str) -> list[Relay]:
        return [replace(relay) for _, (of, relay) in sorted(self._relays.items()) if of == topic]

    async def bury(self, relay_id: UUID, lease: int) -> None:
        if relay_id in self._relays and self._relays[relay_id][1].lease == lease:
            del self._relays[relay_id]

    async def leave(self, relay_id: UUID) -> None:
        self._relays.pop(relay_id, None)
        for lane in self._lanes.values():
            if lane.owner == relay_id:
                lane.owner = None

    async def lanes(self, topic: str) -> list[Lane]:
        return [replace(lane) for lane in self._of(topic)]

    def _of(self, topic: str) -> Iterator[Lane]:
        return (lane for of, lane in sorted(self._lanes.items()) if topic in ("", of[0]))

    async def claim(self, relay_id: UUID, topic: str, limit: int) -> None:
        free = [lane for lane in self._of(topic) if lane.owner not in self._relays]
        for lane in free[:limit]:
            lane.owner = relay_id

    async def release(self, relay_id: UUID, topic: str, lanes: Sequence[int]) -> None:
        for lane in self._of(topic):
            if lane.owner == relay_id and lane.lane in lanes:
                lane.owner = None

    async def relayed(self, topic: str, places: Mapping[int, tuple[UUID, Place]]) -> None:
        for number, (start_id, place) in places.items():
            lane = self._lanes[topic, number]
            if lane.start_id == start_id and (not lane.begun or place > lane.place):
                lane.begun, lane.place = True, place

    async def stop(self, lane: Lane, fault: str) -> bool:
        row = self._lanes[lane.topic, lane.lane]
        if (row.start_id, row.owner) != (lane.start_id, lane.owner):
            return False
        row.fault = fault
        return True

    async def lag(self, topic: str = "") -> list[LaneLag]:
        return [self._lag(lane) for lane in self._of(topic)]

    def _lag(self, lane: Lane) -> LaneLag:
        _, owner = self._relays.get(lane.owner, ("", None)) if lane.owner else ("", None)
        after = self._after(lane.lane, lane.place)
        oldest_time = min((entry.event.time for entry in after), default=None)
        seconds = (self._now() - oldest_time).total_seconds() if oldest_time else 0.0
        return LaneLag(replace(lane), owner.relay_name if owner else "", len(after), seconds, oldest_time)

    async def oldest_transaction_s(self) -> float:
        """Nothing here takes time."""
        return 0.0

    def is_ahead_of(self, key: Key, last: Place) -> bool:
        """Whether every mirror is behind this event, which is the last one of this saga."""
        number = relay_partition(*key) % LANES
        return all(last < lane.place for lane in self._lanes.values() if lane.lane == number)

    async def read(
        self, marks: Mapping[int, Mark], *, lane_limit: int, lane_bytes: int, payloads: bool
    ) -> dict[int, LanePage]:
        return {lane: self._page(lane, mark, lane_limit, lane_bytes, payloads) for lane, mark in marks.items()}

    def _page(self, lane: int, mark: Mark, limit: int, most_bytes: int, payloads: bool) -> LanePage:
        page = LanePage([], False, self._is_known(lane, mark), HISTORY)
        size = 0
        for entry in self._after(lane, mark.place):
            payload = entry.event.payload if payloads or entry.event.revision == 1 else b""
            size += len(entry.event.body) + len(payload)
            if page.events and (len(page.events) == limit or size > most_bytes):
                page.more = True
                break
            page.events.append(_event(entry, payload))
        return page

    def _is_known(self, lane: int, mark: Mark) -> bool:
        if mark.batch_id is None:
            return True
        entries = self._journal.lane(lane)
        until = entries[: bisect_right(entries, mark.place, key=_place)]
        found = [(HISTORY, _place(entry), entry.batch_id) for entry in until[-1:]]
        return found == [(mark.history, mark.place, mark.batch_id)]

    def _after(self, lane: int, place: Place) -> list[Entry]:
        entries = self._journal.lane(lane)
        return entries[bisect_right(entries, place, key=_place) :]

    async def first_payloads(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        lanes = {relay_partition(*key) % LANES: None for key in keys}
        entries = (entry for lane in lanes for entry in self._journal.lane(lane) if entry.event.revision == 1)
        return {entry.saga.key: entry.event.payload for entry in entries if entry.saga.key in keys}


def _place(entry: Entry) -> Place:
    return Place(entry.cursor.xid, entry.cursor.position)


def _event(entry: Entry, payload: bytes) -> MirrorEvent:
    saga = entry.saga
    return MirrorEvent(
        Mark(_place(entry), entry.batch_id, HISTORY),
        replace(entry.event, payload=payload),
        saga.uid,
        saga.definition_id,
        saga.version,
        entry.relay_partition,
        dict(saga.labels) if entry.event.revision == 1 else {},
    )
