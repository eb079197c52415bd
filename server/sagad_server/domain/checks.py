"""The bounds of what users send, and the collector of faults that all validation shares."""

import re
from collections.abc import Collection
from dataclasses import dataclass

import semver
from google.protobuf.duration_pb2 import Duration

from sagad_server.domain.errors import InvalidArgument, Violation
from sagad_server.domain.payloads import MAX_PAYLOAD_BYTES

SECOND_MS = 1000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_DEFINITION_ID = re.compile(r"[A-Za-z0-9._-]+")
_STEP_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range, both ends included: of a length in characters, a number, or a time in milliseconds."""

    minimum: int
    maximum: int

    def __contains__(self, number: float) -> bool:
        return self.minimum <= number <= self.maximum

    def __str__(self) -> str:
        return f"{self.minimum:,}-{self.maximum:,}"


VERSION_LENGTH = Bounds(1, 100)
SAGA_TIMEOUT_MS = Bounds(SECOND_MS, 365 * DAY_MS)


@dataclass(frozen=True, slots=True)
class ValidationLimits:
    """The configured bounds (`validation.*`, `limits.*`) and their defaults. The contract's own are constants."""

    definition_id: Bounds = Bounds(2, 100)
    definition_name: Bounds = Bounds(2, 100)
    definition_description: Bounds = Bounds(10, 500)
    step_id: Bounds = Bounds(2, 100)
    step_name: Bounds = Bounds(2, 100)
    step_description: Bounds = Bounds(10, 500)
    action: Bounds = Bounds(2, 100)
    compensation: Bounds = Bounds(2, 100)
    max_retries: Bounds = Bounds(0, 10)
    step_timeout_ms: Bounds = Bounds(SECOND_MS, HOUR_MS)
    max_steps_per_definition: int = 100
    max_definitions: int = 1000
    max_steps: int = 10_000
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    max_labels: int = 32


class Checker:
    """Collects violations by field path. Each method returns whether the value is as it must be."""

    def __init__(self, limits: ValidationLimits) -> None:
        self.limits = limits
        self.violations: list[Violation] = []

    def raise_if_any(self) -> None:
        """Raise InvalidArgument with every violation found so far."""
        if self.violations:
            raise InvalidArgument.of(self.violations)

    def fail(self, field: str, description: str) -> bool:
        """Note a fault."""
        self.violations.append(Violation(field, description))
        return False

    def text(
        self,
        field: str,
        value: str,
        bounds: Bounds,
        *,
        pattern: re.Pattern[str] | None = None,
        allowed: str = "",
    ) -> bool:
        """A text of a length in characters, without NUL, which PostgreSQL cannot store; `allowed` words the pattern."""
        if not value and bounds.minimum:
            return self.fail(field, f"is required: {bounds} characters")
        if len(value) not in bounds:
            return self.fail(field, f"has {len(value)} characters ({shown(value)}); {bounds} are allowed")
        if "\0" in value:
            return self.fail(field, f"holds a NUL character, which cannot be stored: {shown(value)}")
        if pattern is not None and not pattern.fullmatch(value):
            return self.fail(field, f"is {shown(value)}; {allowed}")
        return True

    def definition_id(self, field: str, value: str) -> bool:
        """The id of a definition."""
        allowed = "a-z, A-Z, 0-9, '.', '_' and '-' are allowed"
        return self.text(field, value, self.limits.definition_id, pattern=_DEFINITION_ID, allowed=allowed)

    def step_id(self, field: str, value: str) -> bool:
        """The id of a step."""
        allowed = "a letter, then a-z, A-Z, 0-9, '_' and '-' are allowed"
        return self.text(field, value, self.limits.step_id, pattern=_STEP_ID, allowed=allowed)

    def version(self, field: str, value: str) -> bool:
        """A semantic version."""
        return self.text(field, value, VERSION_LENGTH) and (
            semver.Version.is_valid(value)
            or self.fail(field, f"is {shown(value)}; a semantic version such as 1.0.0 is needed (semver.org)")
        )

    def number(self, field: str, value: float, bounds: Bounds) -> bool:
        """A number in a range; NaN is in none."""
        return value in bounds or self.fail(field, f"is {value}; {bounds} is allowed")

    def duration(self, field: str, value: Duration, bounds_ms: Bounds) -> bool:
        """A time span in a range."""
        if abs(value.nanos) > 999_999_999 or value.seconds * value.nanos < 0:
            return self.fail(field, f"is no duration: {value.seconds} seconds and {value.nanos} nanoseconds")
        milliseconds = value.seconds * 1000 + value.nanos / 1_000_000
        if milliseconds not in bounds_ms:
            span = f"{shown_ms(bounds_ms.minimum)}-{shown_ms(bounds_ms.maximum)}"
            return self.fail(field, f"is {shown_ms(milliseconds)}; {span} is allowed")
        return True

    def one_of(self, field: str, value: str, known: Collection[str], what: str) -> bool:
        """A name out of a set."""
        if value in known:
            return True
        names = [name if name.isprintable() else shown(name) for name in sorted(known)[:20]]
        more = f" and {len(known) - 20} more" if len(known) > 20 else ""
        return self.fail(field, f"is {shown(value)}; known {what}: {', '.join(names) or 'none'}{more}")


def shown(text: str) -> str:
    """The text as an error shows it: quoted, without control characters, not too long."""
    return ascii(text) if len(text) <= 60 else ascii(text[:60]) + "..."


def shown_ms(milliseconds: float) -> str:
    """A time span for people, such as 500ms, 1.5s, 1h, 30d."""
    for unit, size in (("d", DAY_MS), ("h", HOUR_MS), ("s", SECOND_MS)):
        if abs(milliseconds) >= size and milliseconds % size == 0:
            return f"{milliseconds / size:g}{unit}"
    return f"{milliseconds / 1000:g}s" if abs(milliseconds) >= SECOND_MS else f"{milliseconds:g}ms"
