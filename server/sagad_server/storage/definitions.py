"""A definition version as it is stored, and what every store says when it refuses one."""

from dataclasses import dataclass
from datetime import datetime

from sagad_server.domain.errors import AlreadyExists, FailedPrecondition, ResourceExhausted

VersionKey = tuple[str, str, str]
"""(namespace, definition_id, version)"""


@dataclass(slots=True)
class StoredDefinition:
    """A definition version. `body` is the serialized `sagad.v1.Definition` without `active` and `create_time`."""

    namespace: str
    definition_id: str
    version: str
    active: bool
    step_count: int
    create_time: datetime
    body: bytes


def require_room(
    definition: StoredDefinition, stored: int, stored_steps: int, max_definitions: int, max_steps: int
) -> None:
    """Raises ResourceExhausted if one more definition would pass a bound on all of them together."""
    if stored + 1 > max_definitions:
        raise ResourceExhausted(
            f"{stored} definition versions are stored, and validation.max_definitions allows {max_definitions}: delete "
            f"some that no saga uses, or raise the bound",
            reason="TOO_MANY_DEFINITIONS",
            metadata={"bound": "validation.max_definitions", "max": str(max_definitions)},
        )
    if stored_steps + definition.step_count > max_steps:
        raise ResourceExhausted(
            f"the stored definitions have {stored_steps} steps, this one has {definition.step_count}, and "
            f"validation.max_steps allows {max_steps} in all: delete some that no saga uses, or raise the bound",
            reason="TOO_MANY_STEPS",
            metadata={"bound": "validation.max_steps", "max": str(max_steps)},
        )


def in_use(definition_id: str, version: str) -> FailedPrecondition:
    """The error for the deletion of a definition that a saga's row names."""
    return FailedPrecondition(
        f"definition {definition_id!r} version {version!r} is named by sagas that are not purged: deactivate it, and "
        f"delete it once they are purged",
        reason="DEFINITION_IN_USE",
        metadata={"definition_id": definition_id, "version": version},
    )


def said_otherwise(definition_id: str, version: str) -> AlreadyExists:
    """The version was deleted, and is not to come back as another one."""
    return AlreadyExists(
        f"definition {definition_id!r} {version} was deleted, and had other content, which never changes: give the new "
        "content another version",
        reason="DEFINITION_EXISTS",
    )
