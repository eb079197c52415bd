"""The definition versions of a MemoryDatabase."""

from dataclasses import replace

from sagad_server.storage.audit import AuditEntry
from sagad_server.storage.definitions import StoredDefinition, VersionKey, in_use, require_room, said_otherwise
from sagad_server.storage.memory_database import MemoryDatabase


def create(
    database: MemoryDatabase,
    definition: StoredDefinition,
    max_definitions: int,
    max_steps: int,
    audit: AuditEntry | None,
) -> StoredDefinition:
    """See `Store.create_definition`."""
    stored = database.definitions
    key = (definition.namespace, definition.definition_id, definition.version)
    if key not in stored:
        if database.deleted_definitions.get(key, definition.body) != definition.body:
            raise said_otherwise(*key[1:])
        steps = sum(other.step_count for other in stored.values())
        require_room(definition, len(stored), steps, max_definitions, max_steps)
        stored[key] = replace(definition, create_time=database.now())
        database.note(audit)
    return replace(stored[key])


def set_active(
    database: MemoryDatabase, key: VersionKey, active: bool, audit: AuditEntry | None
) -> StoredDefinition | None:
    """See `Store.set_definition_active`."""
    found = database.definitions.get(key)
    if found is None:
        return None
    found.active = active
    database.note(audit)
    return replace(found)


def delete(database: MemoryDatabase, key: VersionKey, audit: AuditEntry | None) -> bool:
    """See `Store.delete_definition`."""
    rows = (saga.row for saga in database.sagas.values())
    if any((row.namespace, row.definition_id, row.version) == key for row in rows):
        raise in_use(*key[1:])
    gone = database.definitions.pop(key, None)
    if gone is None:
        return False
    database.deleted_definitions[key] = gone.body
    database.note(audit)
    return True
