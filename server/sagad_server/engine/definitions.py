"""Compiled definitions by name, as the store has them."""

from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.definition import Definition, compile_definition, highest_active
from sagad_server.domain.errors import FailedPrecondition, NotFound
from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.store import Store

DefinitionKey = tuple[str, str, str]
"""(namespace, definition_id, version)"""


class Definitions:
    """A cache over the store. Versions are immutable; which are active is asked anew when this node changes it, and
    every `refresh_s` by the node's upkeep."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._compiled: dict[DefinitionKey, Definition] = {}
        self._active: dict[tuple[str, str], dict[str, bool]] = {}

    async def get(self, namespace: str, definition_id: str, version: str) -> Definition:
        """A version, active or not. Raises NotFound."""
        key = namespace, definition_id, version
        found = self._compiled.get(key)
        if found is None:
            stored = await self._store.get_definition(*key)
            if stored is None:
                raise _not_found(definition_id, version)
            found = self._compiled[key] = compile_definition(DefinitionMessage.FromString(stored.body))
        return found

    def peek(self, namespace: str, definition_id: str, version: str) -> Definition | None:
        """What StartSaga would take, if that is known without asking the store."""
        versions = self._active.get((namespace, definition_id))
        if versions is None:
            return None
        chosen = version or highest_active(versions.items())
        if chosen is None or not versions.get(chosen):
            return None
        return self._compiled.get((namespace, definition_id, chosen))

    async def to_start(self, namespace: str, definition_id: str, version: str) -> Definition:
        """The version that StartSaga takes. Raises NotFound, or FailedPrecondition if it is not active."""
        return await self.get(namespace, definition_id, await self.choose(namespace, definition_id, version))

    async def choose(self, namespace: str, definition_id: str, version: str) -> str:
        """The same, by name only."""
        stored = await self._store.list_definitions(namespace, definition_id)
        versions = {one.version: one.active for one in stored}
        if not versions or (version and version not in versions):
            raise _not_found(definition_id, version)
        self._active[namespace, definition_id] = versions
        chosen = version or highest_active(versions.items())
        if chosen is None:
            raise FailedPrecondition(
                f"definition {definition_id!r} has no active version that is no pre-release: name one, or activate one",
                reason="DEFINITION_INACTIVE",
            )
        if not versions[chosen]:
            raise FailedPrecondition(
                f"definition {definition_id!r} {chosen} is not active: activate it, or name another version",
                reason="DEFINITION_INACTIVE",
            )
        return chosen

    def changed(self, definition: StoredDefinition) -> None:
        """Forgets what is known of a definition that was created, activated, deactivated or deleted."""
        self.deleted(definition.namespace, definition.definition_id, definition.version)

    def deleted(self, namespace: str, definition_id: str, version: str) -> None:
        self._active.pop((namespace, definition_id), None)
        self._compiled.pop((namespace, definition_id, version), None)

    def refresh(self) -> None:
        """Asks the store anew which versions are active: another node may have changed it."""
        self._active.clear()


def _not_found(definition_id: str, version: str) -> NotFound:
    name = f"{definition_id!r} {version}" if version else repr(definition_id)
    return NotFound(f"there is no definition {name}: create it first", reason="DEFINITION_NOT_FOUND")
