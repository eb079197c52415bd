"""The audit log in the database."""

import asyncpg

from sagad_server.storage.audit import AuditEntry, AuditFilter, AuditKind, AuditRow
from sagad_server.storage.postgres.connect import AnyConnection
from sagad_server.storage.postgres.pool import Pool
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.postgres.selection import Parameters

SQL = load_queries("audit")


async def append(connection: AnyConnection, entry: AuditEntry) -> None:
    """Notes an entry, in the transaction that the connection is in."""
    texts = (entry.actor, entry.subject, entry.reason, entry.details)
    await connection.execute(SQL["append"], entry.namespace, entry.kind, *texts)


async def list_audit(pool: Pool, selection: AuditFilter, before: int | None, limit: int) -> list[AuditRow]:
    """See `Store.list_audit`."""
    parameters = Parameters()
    condition = _where(selection, before, parameters)
    sql = SQL["list"].format(where=condition, limit=parameters.add(limit))
    return [_row(record) for record in await pool.fetch(sql, *parameters.values)]


def _where(selection: AuditFilter, before: int | None, parameters: Parameters) -> str:
    add = parameters.add
    conditions = [f"namespace IN ('', {add(selection.namespace)})"]
    if selection.kinds:
        conditions.append(f"kind = ANY ({add(list(selection.kinds))}::smallint[])")
    if selection.actor:
        conditions.append(f"actor = {add(selection.actor)}")
    bounds = {"time >=": selection.time_min, "time <": selection.time_max, "audit_id <": before}
    conditions += [f"{comparison} {add(bound)}" for comparison, bound in bounds.items() if bound is not None]
    return " AND ".join(conditions)


def _row(record: asyncpg.Record) -> AuditRow:
    texts = {name: record[name] for name in ("namespace", "actor", "subject", "reason", "details")}
    return AuditRow(record["audit_id"], record["time"], AuditEntry(kind=AuditKind(record["kind"]), **texts))
