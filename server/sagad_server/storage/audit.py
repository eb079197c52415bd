"""Who has done what that is not a transition of one saga."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

MAX_DETAILS_LENGTH = 4096
_CUT_LENGTH = 2000  # quoted once more it is at most twice as long


class AuditKind(IntEnum):
    """Numbers of `sagad.v1.AuditKind`."""

    DEFINITION_CREATED = 1
    DEFINITION_ACTIVATED = 2
    DEFINITION_DEACTIVATED = 3
    DEFINITION_DELETED = 4
    SAGAS_PURGED = 5
    NODE_DRAINED = 6
    SAGAS_REPAIRED = 7
    MIRROR_RESUMED = 8
    MIRROR_REMOVED = 9


@dataclass(slots=True, frozen=True)
class AuditEntry:
    """What is to be noted."""

    kind: AuditKind
    actor: str
    subject: str
    namespace: str = ""
    """Empty for what concerns the server as a whole."""
    reason: str = ""
    details: str = "{}"
    """A JSON object; see `details`."""


@dataclass(slots=True, frozen=True)
class AuditRow:
    """What was noted, when. `audit_id` grows."""

    audit_id: int
    time: datetime
    entry: AuditEntry


@dataclass(slots=True, frozen=True)
class AuditFilter:
    """Selects entries of one namespace, and those of the server as a whole; what is empty selects all."""

    namespace: str
    kinds: tuple[int, ...] = ()
    actor: str = ""
    time_min: datetime | None = None
    """Inclusive."""
    time_max: datetime | None = None
    """Exclusive."""

    def selects(self, row: AuditRow) -> bool:
        """Whether the row matches."""
        entry = row.entry
        return (
            entry.namespace in ("", self.namespace)
            and (not self.kinds or entry.kind in self.kinds)
            and self.actor in ("", entry.actor)
            and (self.time_min is None or row.time >= self.time_min)
            and (self.time_max is None or row.time < self.time_max)
        )


def details(values: Mapping[str, object]) -> str:
    """The values as JSON, at most MAX_DETAILS_LENGTH characters: what would be longer is cut."""
    text = json.dumps(values)
    return text if len(text) <= MAX_DETAILS_LENGTH else json.dumps({"cut": text[:_CUT_LENGTH]})
