"""What is limited, and what its users see of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from sagad_server.guard.bucket import Rate


class Kind(Enum):
    """Of whom a limit is."""

    CLIENT = "client"
    DEFINITION = "definition"
    PARTICIPANT = "participant"


@dataclass(frozen=True, slots=True)
class Subject:
    """Of whom a limit is: all nodes count it together, if they share Redis."""

    kind: Kind
    name: str
    rate: Rate


@dataclass(frozen=True, slots=True)
class Later:
    """There is no token."""

    pause_s: float
    """When asking again is worth it."""
    away: bool = False
    """Redis does not answer, and the policy is `closed`."""


Told: TypeAlias = Callable[[Later | None], None]
"""None: there are tokens, to be taken before it returns, or else soon."""


class Limit(Protocol):
    """The tokens of one subject."""

    @property
    def subject(self) -> Subject: ...

    def take(self) -> bool:
        """Whether a token is at hand: it is used now."""

    def give_back(self) -> None:
        """A token that was taken is not used after all."""

    def ask(self, wanted: int, told: Told) -> None:
        """For tokens, where none is at hand. Tells once: at once that there are none, or else later what came of it."""


class LimitObserver(Protocol):
    """Hears what limits do."""

    def limited(self, kind: Kind) -> None:
        """A start was refused or has to wait, or calls of a participant have to wait."""

    def leased(self) -> None:
        """Redis has answered."""

    def away(self, away: bool) -> None:
        """Redis does not answer any more, or answers again."""


def clock_us(seconds: float) -> int:
    """The instant in microseconds, as buckets count it."""
    return int(seconds * 1_000_000)
