"""Every way in which a definition can fail, walked with the rules that drive sagas.

One thing goes wrong on a path, and with it at most one compensation. Calls side by side are answered in the order in
which they were made: of the orders that can happen this is one.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from sagad_server.domain.definition import Definition
from sagad_server.domain.example import Assumption, Example, settle
from sagad_server.domain.faults import COMPENSATION_FAULTS, Fault, FaultKind
from sagad_server.domain.moments import Moments
from sagad_server.domain.path import Path, attempts, path_of
from sagad_server.domain.states import Direction, SagaState
from sagad_server.domain.walk import Call, Log, Walk, Work

MAX_PATHS = 1000
MAX_TRANSITIONS = 12_000
"""Bounds the work: about a second for the largest definitions."""


@dataclass(frozen=True, slots=True)
class _Fork:
    """A walk just before the answer to a compensation, and what has gone wrong until then."""

    walk: Walk
    faults: tuple[Fault, ...]


class Exploration:
    """The failure paths of a definition. It is used once."""

    def __init__(
        self,
        definition: Definition,
        example: Example,
        *,
        max_paths: int = MAX_PATHS,
        max_transitions: int = MAX_TRANSITIONS,
    ) -> None:
        self.definition = definition
        self.assumptions: list[Assumption] = []
        self._example = example
        self._room = max_paths
        self._max_transitions = max_transitions
        self.work = Work()
        self._tails: dict[Hashable, tuple[Log | None, Log | None]] = {}
        self._first_forks: dict[Call, _Fork] = {}
        self._more_forks: list[_Fork] = []
        self.left_out = 0
        """How many paths were not walked, as far as is known; final, as `assumptions`, once `paths` has ended."""

    def paths(self) -> Iterator[Path | None]:
        """One by one: where nothing goes wrong, where one thing does, where a compensation fails as well.

        A path that comes to a situation in which another one has been goes on as that one did, and the compensations
        that follow are failed on one of them only. Where there is no room for all, each kind of fault has its share.
        None is no path, but a pause after some work.
        """
        settled = yield from settle(self.definition, self._example)
        self.assumptions = settled.assumptions
        moments = Moments(settled.definition, self.work)
        calm = self._finish(moments.first, ())
        self._room -= 1
        yield calm
        waiting = moments.plans(self.definition)
        for share in (self._max_transitions // len(FaultKind), self._max_transitions):
            for plans in waiting.values():
                begun = self.work.transitions
                while plans and not self._is_full() and self.work.transitions - begun < share:
                    forked = moments.fork(plans.popleft())
                    if forked is not None:
                        self._room -= 1
                        yield self._path(*forked, calm)
        self.left_out += sum(map(len, waiting.values()))
        yield from self._failing_compensations()

    def _path(self, walk: Walk, fault: Fault, calm: Path) -> Path:
        return replace(calm, faults=(fault,)) if fault.held_off_by else self._finish(walk, (fault,))

    def _failing_compensations(self) -> Iterator[Path]:
        self._max_transitions += self._max_transitions // 4
        for fork in (*self._first_forks.values(), *self._more_forks):
            for kind in COMPENSATION_FAULTS:
                if self._is_full():
                    self.left_out += 1
                    continue
                walk = fork.walk.fork()
                assert walk.next_call is not None
                index, direction = walk.next_call
                walk.fail_next_call(kind)
                walk.run()
                self._room -= 1
                yield path_of(walk, (*fork.faults, Fault(kind, index, direction)))

    def _is_full(self) -> bool:
        return self._room <= 0 or self.work.transitions >= self._max_transitions

    def _finish(self, walk: Walk, faults: tuple[Fault, ...]) -> Path:
        """Goes on to the end, or to where another walk has been, and remembers the situations on the way."""
        passed: list[tuple[Hashable, Log | None]] = []
        state = None
        while not walk.saga.at_rest:
            situation = walk.situation()
            if situation in self._tails:
                for entry in attempts(*self._tails[situation]):
                    walk.log = Log(entry.call, entry.unknown, walk.log)
                state = SagaState.COMPENSATED
                break
            if situation is not None:
                passed.append((situation, walk.log))
                self._remember(walk, faults)
            walk.turn()
        if state or walk.saga.state is SagaState.COMPENSATED:
            self._tails.update((situation, (walk.log, since)) for situation, since in passed)
        return path_of(walk, faults, state=state)

    def _remember(self, walk: Walk, faults: tuple[Fault, ...]) -> None:
        """A compensation that is about to be answered may fail."""
        call = walk.next_call
        if call is None or call[1] is not Direction.COMPENSATION:
            return
        if call not in self._first_forks:
            self._first_forks[call] = _Fork(walk.fork(), faults)
        elif len(self._more_forks) < MAX_PATHS:
            self._more_forks.append(_Fork(walk.fork(), faults))
        else:
            self.left_out += len(COMPENSATION_FAULTS)
