"""Sagas that are parked as a whole, by their rows alone."""

from sagad_server.domain.errors import Unavailable
from sagad_server.domain.states import ParkingReason
from sagad_server.engine import records
from sagad_server.engine.journal import Journal
from sagad_server.engine.ports import Clock, Random
from sagad_server.engine.watch import Watches
from sagad_server.storage.rows import Key
from sagad_server.storage.store import Store


class Incidents:
    """Parks sagas whose data cannot be trusted to be read."""

    def __init__(self, store: Store, clock: Clock, random: Random, watches: Watches, journal: Journal) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._watches = watches
        self._journal = journal

    async def park(self, key: Key, revision: int, epoch: int, reason: ParkingReason, incident_id: str) -> None:
        """Parks a saga if it still stands there, however often the store has to be asked."""
        event = records.encode_incident(incident_id, reason.name)
        while True:
            try:
                await self._store.park(
                    key, revision=revision, epoch=epoch, reason=reason.value, incident_id=incident_id, event=event
                )
                break
            except Unavailable:
                await self._pause()
        self._journal.wake()
        while self._watches.watched(key):  # also if it was not parked by the call whose answer came
            try:
                for row in await self._store.list_events(key, revision, 1):
                    self._watches.publish(row)
                break
            except Unavailable:
                await self._pause()

    async def _pause(self) -> None:
        await self._clock.sleep(0.5 + self._random.random())
