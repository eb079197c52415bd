"""One way through a definition: what goes wrong, the calls that are made, and the end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sagad_server.domain.faults import Fault, FaultKind
from sagad_server.domain.saga import Failure, Parking, parkings
from sagad_server.domain.states import Direction, SagaState
from sagad_server.domain.walk import Call, Log, Walk


@dataclass(frozen=True, slots=True)
class PathCall:
    """All attempts of one call."""

    step: int
    direction: Direction
    attempts: int
    fault: FaultKind | None
    """How the attempts end; None: the last one succeeds."""
    unknown: bool
    """Of a compensation: it is not known whether the action has happened."""


@dataclass(frozen=True, slots=True)
class Path:
    """`calls` stand in the order of their first attempts."""

    faults: tuple[Fault, ...]
    """Empty: nothing goes wrong."""
    calls: tuple[PathCall, ...]
    state: SagaState
    """SUCCEEDED, COMPENSATED or PARKED."""
    parkings: tuple[Parking, ...]
    failure: Failure | None
    """What made the saga turn round."""
    duration_ms: int
    """How long the waits take, at most."""


def path_of(walk: Walk, faults: tuple[Fault, ...], *, state: SagaState | None = None) -> Path:
    """The path of a walk that is at rest, or that is known to end in `state` with nothing parked."""
    parked = tuple(parkings(walk.saga)) if state is None else ()
    calls = tuple(_calls(walk.log, walk.faults))
    return Path(faults, calls, state or walk.saga.state, parked, walk.saga.failure, walk.now_ms)


def reading_order(path: Path) -> list[tuple[int, ...]]:
    """Sorts paths as a person reads them: where nothing goes wrong, then step by step, then the saga as a whole."""
    return [_order(fault) for fault in path.faults]


def _order(fault: Fault) -> tuple[int, ...]:
    if fault.step is None:
        return 1, fault.kind, fault.revision
    return 0, fault.step, fault.kind


def attempts(log: Log | None, since: Log | None = None) -> list[Log]:
    """The entries of a log, the first one first, without `since` and what was before it."""
    found = []
    while log is not since:
        assert log is not None, "`since` is no part of the log"
        found.append(log)
        log = log.before
    return found[::-1]


def _calls(log: Log | None, faults: Mapping[Call, FaultKind]) -> Iterable[PathCall]:
    counted: dict[Call, int] = {}
    unknown = set()
    for entry in attempts(log):
        counted[entry.call] = counted.get(entry.call, 0) + 1
        if entry.unknown:
            unknown.add(entry.call)
    for call, count in counted.items():
        yield PathCall(*call, count, faults.get(call), call in unknown)
