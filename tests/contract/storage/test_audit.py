"""Store.append_audit and list_audit, and what is audited with a change of a definition."""

from datetime import timedelta
from typing import Any

import pytest
from support.storage import DEFINITION_ID, NAMESPACE, VERSION, Backend, definition, end, start

from sagad.v1 import admin_service_pb2
from sagad_server.domain.errors import FailedPrecondition, ResourceExhausted
from sagad_server.storage.audit import MAX_DETAILS_LENGTH, AuditEntry, AuditFilter, AuditKind, details


def entry(kind: AuditKind = AuditKind.NODE_DRAINED, **fields: str) -> AuditEntry:
    return AuditEntry(**{"kind": kind, "actor": "ipv4:1", "subject": "node", **fields})  # type: ignore[arg-type]


async def subjects(backend: Backend, before: int | None = None, limit: int = 100, **selection: Any) -> list[str]:
    rows = await backend.store.list_audit(AuditFilter(**{"namespace": NAMESPACE, **selection}), before, limit)
    return [row.entry.subject for row in rows]


async def test_what_was_noted_is_listed_newest_first_as_it_was_given(backend: Backend) -> None:
    given = entry(AuditKind.SAGAS_PURGED, namespace=NAMESPACE, reason="old", details='{"purged": 1}')
    await backend.store.append_audit(entry())
    await backend.store.append_audit(given)

    newest, oldest = await backend.store.list_audit(AuditFilter(NAMESPACE), None, 10)

    assert (newest.entry, oldest.entry) == (given, entry())
    assert newest.audit_id > oldest.audit_id
    assert newest.time >= oldest.time
    assert newest.time.tzinfo is not None


async def test_pages_follow_each_other_by_audit_id(backend: Backend) -> None:
    for number in range(5):
        await backend.store.append_audit(entry(subject=str(number)))

    rows = await backend.store.list_audit(AuditFilter(NAMESPACE), None, 2)
    assert [row.entry.subject for row in rows] == ["4", "3"]
    assert await subjects(backend, before=rows[-1].audit_id) == ["2", "1", "0"]


async def test_each_field_of_the_filter_must_match(backend: Backend) -> None:
    await backend.store.append_audit(entry(subject="of all"))
    await backend.store.append_audit(entry(subject="own", namespace=NAMESPACE, actor="ipv4:2"))
    await backend.store.append_audit(entry(AuditKind.SAGAS_PURGED, subject="other's", namespace="other"))
    own, of_all = await backend.store.list_audit(AuditFilter(NAMESPACE), None, 10)

    assert await subjects(backend) == ["own", "of all"]
    assert await subjects(backend, namespace="other") == ["other's", "of all"]
    assert await subjects(backend, namespace="other", kinds=(AuditKind.SAGAS_PURGED,)) == ["other's"]
    assert await subjects(backend, actor="ipv4:2") == ["own"]
    assert await subjects(backend, time_min=own.time) == ["own"]
    assert await subjects(backend, time_max=own.time) == ["of all"]
    assert await subjects(backend, time_max=of_all.time - timedelta(seconds=1)) == []


async def test_a_change_of_a_definition_is_noted_with_it_and_what_was_not_done_is_not(backend: Backend) -> None:
    def audit(subject: str) -> AuditEntry:
        return entry(AuditKind.DEFINITION_CREATED, subject=subject, namespace=NAMESPACE)

    key = (NAMESPACE, DEFINITION_ID, VERSION)
    missing = (NAMESPACE, DEFINITION_ID, "9.9.9")
    store = backend.store
    await backend.commit(start("a"))
    await backend.commit(end("a", 2))
    await store.create_definition(definition(), 1_000, 10_000, audit=audit("stands already"))
    with pytest.raises(ResourceExhausted):
        await store.create_definition(definition("new"), 1, 10_000, audit=audit("no room"))
    await store.set_definition_active(*missing, active=False, audit=audit("no such version"))
    with pytest.raises(FailedPrecondition):
        await store.delete_definition(*key, audit=audit("in use"))
    await store.delete_definition(*missing, audit=audit("no such version"))
    assert await subjects(backend) == []

    await store.create_definition(definition("new"), 1_000, 10_000, audit=audit("created"))
    await store.set_definition_active(*key, active=False, audit=audit("deactivated"))
    await backend.purge_all()
    await store.delete_definition(*key, audit=audit("deleted"))
    assert await subjects(backend) == ["deleted", "deactivated", "created"]


def test_details_are_json_and_bounded() -> None:
    assert details({"a": 1}) == '{"a": 1}'
    assert len(details({"a": '"' * 100_000})) <= MAX_DETAILS_LENGTH
    assert details({"a": '"' * 100_000}).startswith('{"cut": ')


def test_the_kinds_are_those_of_the_contract() -> None:
    kinds = {value.name: value.number for value in admin_service_pb2.AuditKind.DESCRIPTOR.values if value.number}
    assert {f"AUDIT_KIND_{kind.name}": kind.value for kind in AuditKind} == kinds
