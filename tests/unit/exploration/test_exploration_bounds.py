"""However large a definition is, its exploration is bounded, says what it left out, and is true to the rules."""

from unittest.mock import patch

from hypothesis import given, settings
from support.definitions import definition, step, valid_definitions
from support.paths import Explored

from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.exploration import MAX_PATHS, MAX_TRANSITIONS
from sagad_server.domain.faults import FaultKind
from sagad_server.domain.graph import bits
from sagad_server.domain.path import Path
from sagad_server.domain.saga import needs_undo
from sagad_server.domain.states import Direction, SagaState
from sagad_server.domain.walk import Walk

CERTAIN = (FaultKind.REFUSED, FaultKind.RETRIES_EXHAUSTED)
"""Faults after which an action has certainly not happened."""


def check(explored: Explored, path: Path) -> None:
    """What an onlooker can demand of a path who sees only its faults, its calls and its end."""
    assert path.state in (SagaState.SUCCEEDED, SagaState.COMPENSATED, SagaState.PARKED)
    assert bool(path.parkings) == (path.state is SagaState.PARKED)
    assert all(parking.allowed_calls for parking in path.parkings)
    steps = explored.definition.steps
    undone: set[int] = set()
    happened = {
        call.step
        for call in path.calls
        if call.direction is Direction.ACTION
        and call.fault not in CERTAIN
        and needs_undo(steps[call.step].kind, steps[call.step].read_only)
    }
    for call in path.calls:
        if call.direction is Direction.COMPENSATION:
            behind = happened & set(bits(steps[call.step].descendants))
            assert behind <= undone, f"{steps[call.step].step_id} is undone too early"
            if call.fault is None:
                undone.add(call.step)
    if path.state is SagaState.COMPENSATED:
        assert undone == happened
    if path.state is SagaState.SUCCEEDED:
        assert not undone


@settings(max_examples=60)
@given(message=valid_definitions())
def test_every_path_ends_or_is_parked_with_compensations_in_reverse(message: DefinitionMessage) -> None:
    explored = Explored(message, input={"amount": 20})
    assert explored.exploration.left_out == 0
    assert len(explored.by_fault) == len(explored.paths)
    for path in explored.paths:
        check(explored, path)


@settings(max_examples=40)
@given(message=valid_definitions())
def test_what_is_not_walked_twice_goes_on_as_it_did(message: DefinitionMessage) -> None:
    explored = Explored(message)
    with patch.object(Walk, "situation", lambda self: None):
        walked = Explored(message)
    for name, path in walked.by_fault.items():
        assert explored[name] == path


def test_the_largest_definitions_stay_within_the_bounds_and_say_what_is_left_out() -> None:
    chain = definition(*(step(f"s{i}") for i in range(100)))
    fan = definition(step("root"), *(step(f"s{i}", "root") for i in range(99)))
    for message in (chain, fan):
        explored = Explored(message)
        assert len(explored.paths) <= MAX_PATHS
        assert explored.exploration.left_out > 0
        assert explored.exploration.work.transitions <= MAX_TRANSITIONS * 1.25 + 500  # the last path is ended
        kinds = {path.faults[0].kind for path in explored.paths if path.faults}
        assert kinds == set(FaultKind) - {FaultKind.EXPRESSION_FAILED}
        for path in explored.paths[::20]:
            check(explored, path)


def test_fewer_paths_may_be_asked_for() -> None:
    message = definition(step("a"), step("b"))
    everything = Explored(message)
    explored = Explored(message, max_paths=5)
    assert len(explored.paths) == 5
    assert explored.paths[0].faults == ()
    assert explored.exploration.left_out >= 10
    assert len(everything.paths) > 15
    only = Explored(message, max_paths=1)
    assert [path.state for path in only.paths] == [SagaState.SUCCEEDED]
