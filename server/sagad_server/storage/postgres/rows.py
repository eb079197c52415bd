"""What the store's dataclasses are in the database."""

import json

import asyncpg

from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.rows import EventRow, LoadedSaga, RowState, SagaRow


def saga_row(record: asyncpg.Record) -> SagaRow:
    return SagaRow(
        namespace=record["namespace"],
        saga_id=record["saga_id"],
        uid=record["uid"],
        definition_id=record["definition_id"] or "",
        version=record["version"] or "",
        state=record["state"],
        revision=record["revision"],
        epoch=record["epoch"],
        owner=record["owner"],
        labels=json.loads(record["labels"]),
        request_hash=record["request_hash"],
        parking_mask=record["parking_mask"],
        category=record["category"],
        incident_id=record["incident_id"],
        park_time=record["park_time"],
        create_time=record["create_time"],
        update_time=record["update_time"],
        end_time=record["end_time"],
        purge_time=record["purge_time"],
        body=record["body"],
    )


def event_row(record: asyncpg.Record) -> EventRow:
    return EventRow(
        namespace=record["namespace"],
        saga_id=record["saga_id"],
        revision=record["revision"],
        cause=record["cause"],
        time=record["time"],
        body=record["body"],
        payload=record["payload"] or b"",
    )


def loaded_saga(record: asyncpg.Record) -> LoadedSaga:
    """From a row of the statement `load`, whose journal is in arrays: null if there is none."""
    row = saga_row(record)
    columns = [record[name] or () for name in ("revisions", "causes", "times", "bodies", "payloads")]
    events = [
        EventRow(row.namespace, row.saga_id, revision, cause, time, body, payload or b"")
        for revision, cause, time, body, payload in zip(*columns, strict=True)
    ]
    return LoadedSaga(row, events, record["now"], _lock_tokens(record))


def row_state(record: asyncpg.Record) -> RowState:
    return RowState(
        record["uid"], record["epoch"], record["revision"], record["batch_id"], record["time"], _lock_tokens(record)
    )


def _lock_tokens(record: asyncpg.Record) -> dict[str, int]:
    return dict(zip(record["lock_names"] or (), record["lock_tokens"] or (), strict=True))


def stored_definition(record: asyncpg.Record) -> StoredDefinition:
    return StoredDefinition(
        namespace=record["namespace"],
        definition_id=record["definition_id"],
        version=record["version"],
        active=record["active"],
        step_count=record["step_count"],
        create_time=record["create_time"],
        body=record["body"],
    )
