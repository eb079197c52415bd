"""Reads the journal as a whole."""

import json

import asyncpg

from sagad_server.storage.journal import Cursor, JournalPage, JournalRow, journal_changed
from sagad_server.storage.mirror import RELAY_PARTITIONS
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.rows import EventRow

_PARTS = load_queries("journal")
END = _PARTS["end"].format(history=_PARTS["history"])
READ = _PARTS["read"].format(history=_PARTS["history"])


async def journal_end(pool: Pool) -> Cursor:
    """See `Store.journal_end`."""
    found = await pool.fetchrow(END)
    assert found is not None
    return Cursor(found["xid"], found["position"], found["history"])


async def read_journal(pool: Pool, after: Cursor, limit: int) -> JournalPage:
    """See `Store.read_journal`."""
    assert limit >= RELAY_PARTITIONS, limit
    records = await pool.fetch(READ, after.xid, after.position, limit // RELAY_PARTITIONS, after.history)
    head = records[0]
    if not head["known"]:
        raise journal_changed()
    history = head["history"]
    rows = [_journal_row(record, history) for record in records if record["xid"] is not None]
    cursor = rows[-1].cursor if rows else Cursor(after.xid, after.position, history)
    return JournalPage(rows, cursor, head["more"], head["purged"])


def _journal_row(record: asyncpg.Record, history: str) -> JournalRow:
    return JournalRow(
        cursor=Cursor(record["xid"], record["position"], history),
        event=EventRow(
            namespace=record["namespace"],
            saga_id=record["saga_id"],
            revision=record["revision"],
            cause=record["cause"],
            time=record["time"],
            body=record["body"],
            payload=b"",
        ),
        parking_mask=record["parking_mask"] or 0,
        category=record["category"] or 0,
        definition_id=record["definition_id"] or "",
        version=record["version"] or "",
        labels=json.loads(record["labels"]),
        create_time=record["create_time"],
        end_time=record["end_time"],
    )
