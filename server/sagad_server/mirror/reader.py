"""One reader of the journal for all lanes of a process: idle lanes share a query, and cost nothing else."""

import asyncio
from dataclasses import dataclass

import structlog

from sagad_server.domain.errors import Unavailable
from sagad_server.engine.ports import Clock, Random
from sagad_server.storage.mirror import LanePage, Mark, MirrorStore

LANE_EVENTS = 2_048
LANE_BYTES = 4 * 1024 * 1024
"""Of a page: so memory is bounded, however far Kafka is behind."""
_IDLE_S = 0.25
_AWAY_S = 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Wait:
    mark: Mark
    due_s: float
    """By the clock of the process."""
    page: "asyncio.Future[LanePage]"


class Reader:
    """Hands out pages. A lane waits for at most one at a time."""

    def __init__(self, tables: MirrorStore, clock: Clock, random: Random, interval_s: float, *, payloads: bool) -> None:
        self._tables = tables
        self._clock = clock
        self._random = random
        self._interval_s = interval_s
        self._payloads = payloads
        self._waits: dict[int, _Wait] = {}
        self._asked = asyncio.Event()
        self._pause_s = interval_s

    async def page(self, lane: int, mark: Mark, *, at_once: bool) -> LanePage:
        """What follows, as soon as there is something, or the mark is no more. `at_once`: there is, as the last page
        said; else the lane's interval comes first, in which more gathers for one transaction."""
        due_s = self._clock.monotonic() + (0 if at_once else self._interval_s)
        wait = _Wait(mark, due_s, asyncio.get_running_loop().create_future())
        self._waits[lane] = wait
        self._asked.set()
        try:
            return await wait.page
        finally:
            if self._waits.get(lane) is wait:
                del self._waits[lane]

    async def run(self) -> None:
        """Reads until cancelled."""
        failures = 0
        while True:
            await self._until_due()
            waits = dict(self._waits)
            try:
                found = await self._read(waits)
            except Unavailable as error:
                failures += 1
                log.warning("the mirror cannot read the journal", error=str(error))
                await self._clock.sleep(min(_AWAY_S, 0.1 * 2**failures) * (0.5 + 0.5 * self._random.random()))
                continue
            failures = 0
            self._pause_s = self._interval_s if found else min(2 * self._pause_s, max(_IDLE_S, self._interval_s))

    async def _until_due(self) -> None:
        while True:
            self._asked.clear()
            due_s = min((wait.due_s for wait in self._waits.values()), default=None)
            if due_s is None:
                await self._asked.wait()
                continue
            if due_s <= self._clock.monotonic():
                return
            timer = self._clock.call_at(due_s, self._asked.set)
            try:
                await self._asked.wait()
            finally:
                timer.cancel()

    async def _read(self, waits: dict[int, _Wait]) -> bool:
        """All that wait, due or not: one query costs less than two."""
        marks = {lane: wait.mark for lane, wait in waits.items()}
        if not marks:
            return False
        pages = await self._tables.read(marks, lane_limit=LANE_EVENTS, lane_bytes=LANE_BYTES, payloads=self._payloads)
        now_s, found = self._clock.monotonic(), False
        for lane, wait in waits.items():
            page = pages[lane]
            if wait.page.done():
                continue
            if page.events or not page.known:
                found = True
                del self._waits[lane]
                wait.page.set_result(page)
            else:
                wait.due_s = now_s + self._pause_s
        return found
