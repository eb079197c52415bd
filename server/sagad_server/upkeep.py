"""What a process does beside its work: waits for PostgreSQL at its start, asks whether it is there, counts, purges."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import structlog

from sagad_server.config import Config
from sagad_server.domain.errors import SagadError, Unavailable
from sagad_server.domain.states import SagaState
from sagad_server.engine.definitions import Definitions
from sagad_server.engine.ports import Random
from sagad_server.engine.writer import Writer
from sagad_server.metrics import Metrics
from sagad_server.storage.audit import AuditEntry, AuditKind, details
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Store

log = structlog.get_logger(__name__)

_PING_EVERY_S = 1.0
_COUNT_EVERY_S = 10.0
_PURGE_BATCH = 250
_PAUSE_S = 0.04
_MOST_BATCHES = 5_000
"""Of one kind, before the others get their turn: some minutes."""
"""At least. So 5,000 a second are purged where the database has time for it: more than a node can end."""
_WAIT_FOR_POSTGRES_S = 60.0
_TRY_EVERY_S = 1.0


async def when_postgres_is_there(work: Callable[[], Awaitable[None]], random: Random) -> None:
    """Does what needs PostgreSQL, again and again for a minute while it is not there.

    Raises Unavailable, at once where PostgreSQL has refused, and whatever else `work` raises.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _WAIT_FOR_POSTGRES_S
    while True:
        try:
            return await work()
        except Unavailable as error:
            if error.reason == "DATABASE_REFUSED" or loop.time() > give_up_at:
                raise
            log.warning("waiting for PostgreSQL", error=str(error))
            await asyncio.sleep(_TRY_EVERY_S * (0.5 + random.random() / 2))


async def watch_health(store: Store, writer: Writer, tell: Callable[[bool], None]) -> None:
    """Tells whether sagad can do its work: PostgreSQL answers, and the writer's commits get through."""
    while True:
        try:
            await store.ping()
            healthy = writer.healthy
        except SagadError as error:
            log.warning("PostgreSQL does not answer", error=str(error))
            healthy = False
        tell(healthy)
        await asyncio.sleep(_PING_EVERY_S)


async def count(store: Store, definitions: Definitions, metrics: Metrics) -> None:
    """Keeps the gauges of sagas by state, and asks anew which definitions are active."""
    while True:
        try:
            counts = await store.count_by_state()
            for state in SagaState:
                metrics.sagas.labels(state.name).set(counts.get(state, 0))
        except SagadError as error:
            log.warning("sagas could not be counted", error=str(error))
        definitions.refresh()
        await asyncio.sleep(_COUNT_EVERY_S)


async def clean_up(store: Store, config: Config) -> None:
    """Purges ended sagas in small batches, and forgets old tombstones."""
    service = config.service
    retention = timedelta(seconds=service.retention)
    tombstones = timedelta(seconds=service.tombstone_retention)
    purged = 0
    while True:
        if purged < _MOST_BATCHES * _PURGE_BATCH:  # else there may be more
            await asyncio.sleep(service.cleanup_interval)
        purged = forgotten = 0
        try:
            async for some in _in_batches(lambda: store.forget(tombstones, _PURGE_BATCH)):
                forgotten += some
            purged = await _purge(store, retention, f"node {config.node.name}")
            log.info("cleaned up", purged=purged, forgotten=forgotten)
        except SagadError as error:
            log.warning("the clean-up goes on next time", error=str(error))


async def _purge(store: Store, retention: timedelta, actor: str) -> int:
    """Audited at its end, however it ends, where it has purged anything."""
    purged, selection = 0, SagaFilter()

    async def batch() -> int:
        nonlocal selection
        done = await store.purge(None, selection, retention, _PURGE_BATCH, dry_run=False)
        selection = SagaFilter(end_time_min=done.until)
        return done.count

    try:
        async for some in _in_batches(batch):
            purged += some
    finally:
        if purged:
            values = details({"retention_s": retention.total_seconds(), "purged": purged})
            await store.append_audit(AuditEntry(AuditKind.SAGAS_PURGED, actor, "ended sagas", details=values))
    return purged


async def _in_batches(work: Callable[[], Awaitable[int]]) -> AsyncIterator[int]:
    """Does it until there is nothing more of it, or for `_MOST_BATCHES`: while sagas end, there is always one more.
    Between two batches the database is left to the sagas: for twice as long as the one took, so that a busy database
    is asked for less."""
    loop = asyncio.get_running_loop()
    for _ in range(_MOST_BATCHES):
        began_at = loop.time()
        some = await work()
        if some:
            yield some
        if some < _PURGE_BATCH:
            return
        await asyncio.sleep(max(_PAUSE_S, 2 * (loop.time() - began_at)))
