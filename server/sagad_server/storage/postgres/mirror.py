"""The mirror's tables, and the journal as it reads it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from sagad_server.storage.mirror import (
    LANES,
    RELAY_PARTITIONS,
    Lane,
    LaneLag,
    LanePage,
    Mark,
    MirrorEvent,
    Place,
    Relay,
    Start,
)
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.postgres.rows import event_row
from sagad_server.storage.rows import Key

MAX_LAG = 20_000
"""Events counted for a lane, at most."""

_AT_A_TIME = 256

SQL = load_queries("mirror")
_READ = SQL["read"].format(history=load_queries("journal")["history"])


class MirrorTables:
    """A MirrorStore, with what operators ask of it. Every method raises Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # --- The processes that relay a topic, and its lanes

    async def enter(self, relay_id: UUID, topic: str, relay_name: str, *, replaces: bool) -> None:
        """Takes part. `replaces`: whoever is there under this name is dead."""
        async with self._pool.transaction() as connection:
            if replaces:
                await connection.execute(SQL["replace"], topic, relay_name)
            await connection.execute(SQL["enter"], relay_id, topic, relay_name)
            await connection.execute(SQL["make_lanes"], topic)

    async def renew(self, relay_id: UUID) -> bool:
        """Lets the lease grow. False: somebody has declared this process dead."""
        return await self._pool.fetchval(SQL["renew"], relay_id) is not None

    async def relays(self, topic: str) -> list[Relay]:
        """All that live, as far as anybody knows."""
        return [Relay(*record) for record in await self._pool.fetch(SQL["relays"], topic)]

    async def bury(self, relay_id: UUID, lease: int) -> None:
        """Declares a process dead, if its lease still stands there."""
        await self._pool.fetchval(SQL["bury"], relay_id, lease)

    async def leave(self, relay_id: UUID) -> None:
        """Takes no part any more."""
        await self._pool.fetchval(SQL["leave"], relay_id)

    async def lanes(self, topic: str) -> list[Lane]:
        """All lanes of a topic; none if nobody has relayed to it yet."""
        return [_lane(record) for record in await self._pool.fetch(SQL["lanes"], topic)]

    async def claim(self, relay_id: UUID, topic: str, limit: int) -> None:
        """Takes lanes that nobody owns."""
        await self._pool.fetchval(SQL["claim"], relay_id, topic, limit)

    async def release(self, relay_id: UUID, topic: str, lanes: Sequence[int]) -> None:
        """Gives lanes to whoever wants them."""
        await self._pool.fetchval(SQL["release"], relay_id, topic, lanes)

    # --- How far they are

    async def relayed(self, topic: str, places: Mapping[int, tuple[UUID, Place]]) -> None:
        """Notes that Kafka has these lanes up to these places, each of the start with this start_id."""
        lanes = sorted(places)
        starts = [places[lane][0] for lane in lanes]
        at = [places[lane][1] for lane in lanes]
        xids, positions = [place.xid for place in at], [place.position for place in at]
        await self._pool.fetchval(SQL["relayed"], topic, lanes, starts, xids, positions)

    async def stop(self, lane: Lane, fault: str) -> bool:
        """Notes why a lane stands still. False: it has another owner than there, or another start."""
        stopped = await self._pool.fetchval(SQL["stop"], lane.topic, lane.lane, lane.start_id, fault, lane.owner)
        return stopped is not None

    async def resume(self, topic: str, lanes: Sequence[int], start: Start) -> list[int]:
        """Lets lanes go on from there. Returns those that exist."""
        return [record["lane"] for record in await self._pool.fetch(SQL["resume"], topic, lanes, start)]

    async def remove(self, topic: str) -> int:
        """Forgets that there is a mirror in this topic, and no longer holds a purge back for it. The number of lanes
        that there were."""
        return len(await self._pool.fetch(SQL["remove"], topic))

    async def lag(self, topic: str = "") -> list[LaneLag]:
        """The lanes of a topic, or of all, by topic and lane."""
        return [
            LaneLag(_lane(record), record["relay_name"], record["events"], record["seconds"], record["oldest_time"])
            for record in await self._pool.fetch(SQL["lag"], topic, MAX_LAG)
        ]

    async def oldest_transaction_s(self) -> float:
        """The age of the oldest transaction that writes: the mirror sees nothing that is younger."""
        seconds: float = await self._pool.fetchval(SQL["oldest_transaction"])
        return seconds

    # --- The journal

    async def read(
        self, marks: Mapping[int, Mark], *, lane_limit: int, lane_bytes: int, payloads: bool
    ) -> dict[int, LanePage]:
        """What follows these places in these lanes, in order and final: see `Store.read_journal`. At most `lane_limit`
        events (8 or more) and `lane_bytes` of a lane, but at least one. Without `payloads` only first events have
        theirs."""
        lanes = sorted(marks)
        at = [marks[lane] for lane in lanes]
        records = await self._pool.fetch(
            _READ,
            lanes,
            [mark.place.xid for mark in at],
            [mark.place.position for mark in at],
            [mark.batch_id for mark in at],
            [mark.history for mark in at],
            lane_limit * LANES // RELAY_PARTITIONS,
            lane_bytes,
            payloads,
        )
        pages: dict[int, LanePage] = {}
        for number, record in enumerate(records, 1):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # sagas are driven on the same loop
            lane = record["lane"]
            if lane not in pages:
                pages[lane] = LanePage([], record["more"], record["known"], record["history"])
            if record["xid"] is not None:
                pages[lane].events.append(_event(record))
        return pages

    async def first_payloads(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        """The payloads of the first events of these sagas."""
        columns = [namespace for namespace, _ in keys], [saga_id for _, saga_id in keys]
        records = await self._pool.fetch(SQL["first_payloads"], *columns)
        return {(record["namespace"], record["saga_id"]): record["payload"] or b"" for record in records}


def _lane(record: asyncpg.Record) -> Lane:
    return Lane(
        topic=record["topic"],
        lane=record["lane"],
        owner=record["owner"],
        start_id=record["start_id"],
        start=Start(record["start"]),
        begun=record["begun"],
        place=Place(record["xid"], record["position"]),
        fault=record["fault"],
    )


def _event(record: asyncpg.Record) -> MirrorEvent:
    mark = Mark(Place(record["xid"], record["position"]), record["batch_id"], record["history"])
    return MirrorEvent(
        mark,
        event_row(record),
        record["uid"],
        record["definition_id"] or "",
        record["version"] or "",
        record["relay_partition"],
        json.loads(record["labels"] or "{}"),
    )
