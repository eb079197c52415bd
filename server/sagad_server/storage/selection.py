"""Which sagas a SagaFilter selects, said in Python."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(slots=True, frozen=True)
class SagaFilter:
    """Selects sagas; what is empty selects all. See `sagad.v1.SagaFilter`."""

    states: tuple[int, ...] = ()
    definition_id: str = ""
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    create_time_min: datetime | None = None
    create_time_max: datetime | None = None
    end_time_min: datetime | None = None
    end_time_max: datetime | None = None
    parking_mask: int = 0
    """Any of these bits."""
    categories: tuple[int, ...] = ()


class Selectable(Protocol):
    """What a filter looks at: a SagaRow, or what stands for one."""

    @property
    def state(self) -> int: ...
    @property
    def definition_id(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def create_time(self) -> datetime: ...
    @property
    def end_time(self) -> datetime | None: ...
    @property
    def parking_mask(self) -> int: ...
    @property
    def category(self) -> int: ...


def selects(selection: SagaFilter, row: Selectable) -> bool:
    """Whether the saga is among the selected; its namespace is not looked at."""
    return (
        (not selection.states or row.state in selection.states)
        and selection.definition_id in ("", row.definition_id)
        and selection.version in ("", row.version)
        and all(row.labels.get(name) == value for name, value in selection.labels.items())
        and _within(row.create_time, selection.create_time_min, selection.create_time_max)
        and (not selection.parking_mask or bool(row.parking_mask & selection.parking_mask))
        and (not selection.categories or row.category in selection.categories)
        and _within(row.end_time, selection.end_time_min, selection.end_time_max)
    )


def _within(time: datetime | None, inclusive_min: datetime | None, exclusive_max: datetime | None) -> bool:
    if inclusive_min is None and exclusive_max is None:
        return True
    return (
        time is not None
        and (inclusive_min is None or time >= inclusive_min)
        and (exclusive_max is None or time < exclusive_max)
    )
