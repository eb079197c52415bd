"""A process's share of the mirror: which lanes it relays, and that others do when it is dead.

Two processes that both take themselves for a lane's owner do no harm: the later one fences the earlier in Kafka. So a
lease here only keeps them from fighting, and is counted on one clock, that of the observer.
"""

import asyncio
from uuid import UUID

import structlog

from sagad_server.domain.errors import Unavailable
from sagad_server.engine.ports import Clock, Random
from sagad_server.mirror.kafka import Kafka
from sagad_server.mirror.lane import LaneRelay
from sagad_server.mirror.metrics import MirrorMetrics
from sagad_server.mirror.reader import Reader
from sagad_server.mirror.settings import MirrorSettings
from sagad_server.storage.mirror import LANES, Lane, MirrorStore, Place, Relay

_TURNS_A_LEASE = 4
_PATIENCE = 1.25
"""Leases that an observer waits: room for clocks that run at different speeds."""
_FIRST_TURN_S = 0.2
_LONGEST_PAUSE_S = 10.0

log = structlog.get_logger(__name__)


class Mirror:
    """Relays a fair share of the lanes. `run` until cancelled, then `stop`."""

    def __init__(
        self,
        settings: MirrorSettings,
        tables: MirrorStore,
        kafka: Kafka,
        clock: Clock,
        random: Random,
        metrics: MirrorMetrics,
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._fault = ""
        self._relay_id: UUID | None = None
        self._seen: dict[UUID, tuple[int, float]] = {}
        """The lease of each other process, and since when it is unchanged."""
        self._lanes: dict[int, LaneRelay] = {}
        self._kafka = kafka
        self._reader = Reader(tables, clock, random, settings.interval_s, payloads=settings.payloads)

    async def run(self) -> None:
        """Never ends by itself: whatever fails, the mirror is late, and that is all."""
        failures = 0
        while True:
            began_s = self._clock.monotonic()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._reader.run())
                    tasks.create_task(self._turns())
            except ExceptionGroup as error:  # sagas must not stop for it
                self._fault = "; ".join(repr(cause) for cause in error.exceptions)
                log.exception("the mirror failed, and starts again")
            failures = 1 if self._clock.monotonic() - began_s > _LONGEST_PAUSE_S else failures + 1
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_TURN_S * 2 ** min(failures, 16))
            await self._clock.sleep(pause_s * (0.5 + 0.5 * self._random.random()))

    @property
    def fault(self) -> str:
        """Why this process does not relay as it should; empty: it does, as far as it knows."""
        faults = [relay.fault for relay in self._lanes.values() if relay.fault]
        return self._fault or (faults[0] if faults else "")

    async def stop(self) -> None:
        """Gives the lanes to others. Never raises Unavailable."""
        await asyncio.gather(*(lane.stop() for lane in self._lanes.values()))
        await self._kafka.close()
        try:
            await self._note_places()
            if self._relay_id is not None:
                await self._tables.leave(self._relay_id)
        except Unavailable as error:  # then others find out by the lease
            log.warning("the mirror could not hand over its lanes", error=str(error))

    async def _turns(self) -> None:
        pause_s = _FIRST_TURN_S
        while True:
            try:
                await self._turn()
                self._fault = ""
            except Unavailable as error:
                # What was not seen while the database was away proves nothing.
                self._seen.clear()
                self._fault = str(error)
                log.warning("the mirror cannot look after its lanes", error=str(error))
            await self._clock.sleep(pause_s * (0.8 + 0.2 * self._random.random()))
            pause_s = self._settings.lease_s / _TURNS_A_LEASE

    async def _turn(self) -> None:
        """Shows that it lives, looks who else does, and takes or gives up lanes."""
        relay_id = await self._renewed()
        await self._note_places()
        relays = await self._tables.relays(self._settings.topic)
        await self._bury_dead(relay_id, relays)
        fair = -(-LANES // max(1, len(relays)))
        rows = await self._tables.lanes(self._settings.topic)
        mine = [row for row in rows if row.owner == relay_id]
        if len(mine) < fair:
            await self._tables.claim(relay_id, self._settings.topic, fair - len(mine))
            rows = await self._tables.lanes(self._settings.topic)
            mine = [row for row in rows if row.owner == relay_id]
        await self._run_only(mine[:fair])
        if extra := [row.lane for row in mine[fair:]]:
            await self._note_places()
            await self._tables.release(relay_id, self._settings.topic, extra)
        await self._measure(rows, relay_id)

    async def _renewed(self) -> UUID:
        topic, name = self._settings.topic, self._settings.relay_name
        if self._relay_id is None:
            relay_id = self._random.uid()
            await self._tables.enter(relay_id, topic, name, replaces=True)
            self._relay_id = relay_id
        elif not await self._tables.renew(self._relay_id):
            # Declared dead. Not by its name: another one may bear it, and both would do so for ever.
            relay_id = self._random.uid()
            await self._tables.enter(relay_id, topic, name, replaces=False)
            self._relay_id = relay_id
        return self._relay_id

    async def _bury_dead(self, relay_id: UUID, relays: list[Relay]) -> None:
        now_s, others = self._clock.monotonic(), [relay for relay in relays if relay.relay_id != relay_id]
        known = {relay.relay_id for relay in others}
        self._seen = {relay: seen for relay, seen in self._seen.items() if relay in known}
        for relay in others:
            lease, since_s = self._seen.get(relay.relay_id, (None, now_s))
            if lease != relay.lease:
                self._seen[relay.relay_id] = relay.lease, now_s
            elif now_s - since_s > self._settings.lease_s * _PATIENCE:
                await self._tables.bury(relay.relay_id, relay.lease)
                relays.remove(relay)

    async def _run_only(self, rows: list[Lane]) -> None:
        """These lanes run, in the start that their rows have, and no others do."""
        wanted = {row.lane: row for row in rows if not row.fault}
        gone = [
            lane
            for lane, relay in self._lanes.items()
            if relay.done or lane not in wanted or relay.lane.start_id != wanted[lane].start_id
        ]
        await asyncio.gather(*(self._lanes[lane].stop() for lane in gone))
        await self._note_places()
        for lane in gone:
            del self._lanes[lane]
        for lane, row in wanted.items():
            if lane not in self._lanes:
                self._lanes[lane] = self._relay(row)

    def _relay(self, row: Lane) -> LaneRelay:
        return LaneRelay(
            self._settings,
            row,
            self._tables,
            self._kafka,
            self._reader,
            self._metrics,
            self._clock,
            self._random,
        )

    async def _note_places(self) -> None:
        places: dict[int, tuple[UUID, Place]] = {
            lane: (relay.lane.start_id, relay.relayed)
            for lane, relay in self._lanes.items()
            if relay.relayed is not None
        }
        if places:
            await self._tables.relayed(self._settings.topic, places)

    async def _measure(self, rows: list[Lane], relay_id: UUID) -> None:
        metrics = self._metrics
        metrics.lanes.set(len(self._lanes))
        metrics.diverged.set(sum(bool(row.fault) for row in rows))
        metrics.oldest_transaction.set(await self._tables.oldest_transaction_s())
        for lag in await self._tables.lag(self._settings.topic):
            if lag.lane.owner == relay_id:
                metrics.lag_events.labels(str(lag.lane.lane)).set(lag.events)
                metrics.lag_seconds.labels(str(lag.lane.lane)).set(lag.seconds)
