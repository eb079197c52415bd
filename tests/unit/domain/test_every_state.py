"""Every state that can be reached, times every input: defined or refused, never a broken rule; and every state can
end."""

from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import product

import pytest
from support.definitions import definition, pivot, retriable, step
from support.play import TIMED_OUT, UID, code, refused

from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.decide import begin, decide
from sagad_server.domain.definition import compile_definition
from sagad_server.domain.errors import SagadError
from sagad_server.domain.inputs import (
    Abandon,
    Answered,
    Compensate,
    Complete,
    DeadlinePassed,
    Failed,
    Input,
    NotSent,
    Pending,
    Recover,
    Retry,
    Skip,
    Success,
    WaitOver,
)
from sagad_server.domain.saga import Saga, Step
from sagad_server.domain.states import ENDED, Direction, SagaState, StepState
from sagad_server.domain.transitions import STEP_MOVES

GRAPHS = {
    "chain": definition(step("one", maxRetries=1), step("two", maxRetries=0)),
    "fork": definition(
        step("root", active=False), step("left", "root", maxRetries=0), step("right", "root", maxRetries=0)
    ),
    "pivot": definition(step("one", maxRetries=0), pivot("pay", "one", maxRetries=1), retriable("ship", "pay")),
    "read": definition(step("look", compensation=None, readOnly=True, maxRetries=1), step("act", maxRetries=0)),
    "expression": definition(
        step("one", maxRetries=0), pivot("pay", "one", maxRetries=0), retriable("ship", "pay", input="input.nothing")
    ),
}
OUTCOMES = [
    Success(None),
    Pending(),
    NotSent("full"),
    NotSent("it does not answer", uses_retry=True),
    TIMED_OUT,
    code("DATA_LOSS"),
    code("NOT_FOUND"),
    code("UNAUTHENTICATED"),
    refused(),
    refused(retryable=True),
    refused(never_executed=True),
]


def first(message: DefinitionMessage) -> Saga:
    compiled = compile_definition(message)
    empty = Saga(compiled, "default", "s", UID, None, timeout_ms=1000, steps=[Step() for _ in compiled.steps])
    return begin(empty).saga


def inputs(saga: Saga) -> Iterator[Input]:
    yield DeadlinePassed()
    yield Compensate()
    yield Recover()
    yield Retry(saga.revision)
    yield Abandon(saga.revision)
    for index, current in enumerate(saga.steps):
        yield Retry(saga.revision, index)
        for executed in (None, True, False):
            yield Skip(saga.revision, index, executed)
        for elapsed_ms in (0, 10**12):
            yield WaitOver(index, current.changed_revision, elapsed_ms)
        for outcome, direction in product(OUTCOMES, Direction):
            attempt = current.attempt if direction is Direction.ACTION else current.compensation_attempt
            for elapsed_ms in (0, 10**12) if isinstance(outcome, Failed) and outcome.retryable else (0,):
                yield Answered(index, direction, current.generation, attempt, outcome, elapsed_ms, 0.5)
            if isinstance(outcome, Success | Failed):
                yield Complete(index, direction, current.generation, outcome, 0, 0.5)


def essence(saga: Saga) -> object:
    """What the rules look at; counters are capped, so that the states are finitely many."""
    steps = tuple(
        (s.state, s.may_have_happened, s.succeeded, min(s.retries, 2), s.attempt > 0, s.parking_reason)
        for s in saga.steps
    )
    return saga.state, saga.compensating, steps


Explored = tuple[dict[object, Saga], dict[object, set[object]]]


@cache
def explore(name: str) -> Explored:
    """All states that can be reached, and to which others each leads."""
    start = first(GRAPHS[name])
    seen = {essence(start): start}
    edges: dict[object, set[object]] = {}
    todo = deque(seen.values())
    while todo:
        saga = todo.popleft()
        before = repr(saga) if len(seen) < 500 else ""
        after = edges.setdefault(essence(saga), set())
        for what in inputs(saga):
            try:
                decision = decide(saga, what)
            except SagadError:
                continue
            if decision is None:
                continue
            assert decision.event.revision == saga.revision + 1
            key = essence(decision.saga)
            after.add(key)
            if key not in seen:
                seen[key] = decision.saga
                todo.append(decision.saga)
        assert not before or repr(saga) == before, "decide never changes the saga it is given"
    return seen, edges


@pytest.fixture(scope="module", params=GRAPHS)
def explored(request: pytest.FixtureRequest) -> Explored:
    return explore(request.param)


def test_every_reachable_state_can_end(explored: Explored) -> None:
    seen, edges = explored
    can_end = {key for key, saga in seen.items() if saga.state in ENDED}
    grown = True
    while grown:
        more = {key for key, after in edges.items() if after & can_end} - can_end
        can_end |= more
        grown = bool(more)
    assert can_end == set(seen)


def test_what_succeeded_or_may_have_happened_never_ends_uncompensated(explored: Explored) -> None:
    for saga in explored[0].values():
        if saga.state is not SagaState.COMPENSATED:
            continue
        for node, current in zip(saga.definition.steps, saga.steps, strict=True):
            if current.succeeded or current.may_have_happened:
                assert current.state is StepState.COMPENSATED or node.read_only


def test_a_saga_that_stands_still_has_ended_or_is_parked(explored: Explored) -> None:
    moving = {StepState.RUNNING, StepState.BACKING_OFF, StepState.AWAITING_COMPLETION, StepState.COMPENSATING}
    moving |= {StepState.COMPENSATION_BACKING_OFF, StepState.COMPENSATION_AWAITING_COMPLETION}
    for saga in explored[0].values():
        resting = saga.state in ENDED or saga.state is SagaState.PARKED
        assert resting or any(s.state in moving for s in saga.steps)


def test_the_graphs_reach_every_step_state() -> None:
    reached = {s.state for name in GRAPHS for saga in explore(name)[0].values() for s in saga.steps}
    assert reached == set(StepState)


def test_every_move_of_the_table_is_one_that_happens() -> None:
    states = {state for state, _ in STEP_MOVES} | set(STEP_MOVES.values())
    assert states == set(StepState)
