"""Lists and counts of a MemoryDatabase's sagas."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from math import ceil

from sagad_server.domain.states import ENDED
from sagad_server.storage.lists import SagaPage, Stats
from sagad_server.storage.memory_database import MemoryDatabase
from sagad_server.storage.rows import Position, SagaRow
from sagad_server.storage.selection import SagaFilter, selects


def list_sagas(
    database: MemoryDatabase,
    namespace: str,
    selection: SagaFilter,
    after: Position | None,
    limit: int,
    most_scanned: int,
) -> SagaPage:
    """See `Store.list_sagas`."""
    following = _newest_first(database.selected(namespace, SagaFilter()))
    if after is not None:
        following = [row for row in following if _follows(row, after)]
    scanned = following[: max(limit, most_scanned)]
    rows = [replace(row) for row in scanned if selects(selection, row)][:limit]
    if len(rows) == limit:
        return SagaPage(rows, rows[-1].position)
    return SagaPage(rows, scanned[-1].position if len(scanned) < len(following) else None)


def stats(database: MemoryDatabase, namespace: str, selection: SagaFilter, most_ended: int, most_scanned: int) -> Stats:
    """See `Store.stats`."""
    rows = _newest_first(database.selected(namespace, SagaFilter()))
    moving = [row for row in rows if row.end_time is None and selects(selection, row)]
    all_ended = [row for row in rows if row.end_time is not None]
    since = None
    if len(all_ended) > most_scanned:
        since = all_ended[most_scanned - 1].create_time + timedelta(microseconds=1)
    ended = [row for row in all_ended if selects(selection, row)]
    if len(ended) > most_ended:
        beyond = ended[most_ended].create_time + timedelta(microseconds=1)
        since = max(since or beyond, beyond)
    ended = [row for row in ended if since is None or row.create_time >= since]
    durations = sorted(row.end_time - row.create_time for row in ended if row.end_time)
    p50, p90, p99 = (_percentile(durations, share) for share in (0.5, 0.9, 0.99))
    oldest = min((row.create_time for row in moving), default=None)
    return Stats(_counts(row.state for row in (*moving, *ended)), p50, p90, p99, oldest, since)


def count_by_state(database: MemoryDatabase) -> dict[int, int]:
    """See `Store.count_by_state`."""
    return _counts(saga.row.state for saga in database.sagas.values() if saga.row.state not in ENDED)


def _counts(states: Iterable[int]) -> dict[int, int]:
    return dict(Counter(int(state) for state in states))


def _percentile(ordered: Sequence[timedelta], share: float) -> timedelta | None:
    """The smallest that at least this share of them does not exceed."""
    return ordered[ceil(share * len(ordered)) - 1] if ordered else None


def _newest_first(rows: Iterable[SagaRow]) -> list[SagaRow]:
    """In the order of lists."""
    ordered = sorted(rows, key=lambda row: row.saga_id)
    ordered.sort(key=lambda row: row.create_time, reverse=True)
    return ordered


def _follows(row: SagaRow, after: Position) -> bool:
    """In the order of lists."""
    time, saga_id = after
    return row.create_time < time or (row.create_time == time and row.saga_id > saga_id)
