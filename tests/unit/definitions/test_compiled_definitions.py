"""What a valid definition becomes."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from support.definitions import PARTICIPANTS, definition, pivot, retriable, step, valid_definitions

from sagad.v1 import definition_pb2
from sagad_server.domain import graph
from sagad_server.domain.definition import (
    compile_definition,
    highest_active,
    is_prerelease,
    milliseconds,
    version_key,
)
from sagad_server.domain.states import StepKind
from sagad_server.domain.validation import ValidationLimits, definition_violations


def test_defaults_are_filled_in() -> None:
    only = compile_definition(definition(step("reserve"))).steps[0]
    assert (only.kind, only.max_retries, only.timeout_ms) == (StepKind.COMPENSATABLE, 3, None)
    assert (only.initial_backoff_ms, only.max_backoff_ms, only.multiplier) == (200, 30_000, 2.0)
    assert (only.retry_for_ms, only.completion_timeout_ms) == (86_400_000, 86_400_000)
    assert (only.when, only.input, only.read_only, only.active) == (None, None, False, True)


def test_what_is_given_is_taken() -> None:
    made = compile_definition(
        definition(
            step(
                "reserve",
                maxRetries=0,
                timeout="1.5s",
                completionTimeout="60s",
                active=False,
                when="input.amount > 1.0",
                input='{"sku": input.sku}',
                retry={
                    "initialBackoff": "0.010s",
                    "maxBackoff": "2s",
                    "multiplier": 3,
                    "retryFor": "10s",
                    "retryableCodes": ["NOT_FOUND"],
                    "finalCodes": ["UNAVAILABLE"],
                },
            ),
            timeout="3600s",
        )
    )
    only = made.steps[0]
    assert made.timeout_ms == 3_600_000
    assert (only.max_retries, only.timeout_ms, only.completion_timeout_ms, only.active) == (0, 1500, 60_000, False)
    assert (only.initial_backoff_ms, only.max_backoff_ms, only.multiplier, only.retry_for_ms) == (10, 2000, 3, 10_000)
    assert (only.retryable_codes, only.final_codes) == ({"NOT_FOUND"}, {"UNAVAILABLE"})
    assert only.when is not None
    assert only.input is not None


def test_the_largest_pause_is_never_below_the_first_one() -> None:
    only = compile_definition(definition(step("reserve", retry={"initialBackoff": "60s"}))).steps[0]
    assert only.max_backoff_ms == 60_000


def test_steps_without_any_depends_on_are_a_chain() -> None:
    made = compile_definition(definition(step("s0"), step("s1"), pivot("s2"), retriable("s3")))
    assert [each.requires for each in made.steps] == [0, 0b1, 0b10, 0b100]
    assert [each.ancestors for each in made.steps] == [0, 0b1, 0b11, 0b111]
    assert [each.descendants for each in made.steps] == [0b1110, 0b1100, 0b1000, 0]
    assert made.pivot == 2
    assert made.index == {"s0": 0, "s1": 1, "s2": 2, "s3": 3}


def test_steps_without_depends_on_are_roots_where_another_has_it() -> None:
    made = compile_definition(definition(step("s0"), step("s1"), step("s2", "s0")))
    assert [each.requires for each in made.steps] == [0, 0, 0b1]
    assert made.pivot is None


def test_a_step_may_be_listed_before_what_it_depends_on() -> None:
    made = compile_definition(definition(step("s0", "s1"), step("s1", "s2"), step("s2")))
    assert [each.ancestors for each in made.steps] == [0b110, 0b100, 0]


@given(valid_definitions())
def test_every_valid_definition_compiles(message: definition_pb2.Definition) -> None:
    assert definition_violations(message, ValidationLimits(), participants=PARTICIPANTS) == []
    made = compile_definition(message)
    assert [each.step_id for each in made.steps] == [each.step_id for each in message.steps]


@given(valid_definitions())
def test_masks_are_what_a_naive_search_finds(message: definition_pb2.Definition) -> None:
    made = compile_definition(message)
    chain = not any(each.depends_on for each in message.steps)
    direct = {
        each.step_id: {message.steps[i - 1].step_id} if chain and i else set(each.depends_on)
        for i, each in enumerate(message.steps)
    }

    def reachable(step_id: str) -> set[str]:
        return direct[step_id].union(*(reachable(parent) for parent in direct[step_id]))

    def names(mask: int) -> set[str]:
        return {made.steps[i].step_id for i in graph.bits(mask)}

    for each in made.steps:
        assert names(each.requires) == direct[each.step_id]
        assert names(each.ancestors) == reachable(each.step_id)
        assert names(each.descendants) == {name for name in direct if each.step_id in reachable(name)}


@given(st.lists(st.integers(0, 255), min_size=8, max_size=8))
def test_a_cycle_is_found_exactly_where_there_is_one(requires: list[int]) -> None:
    cycle = graph.find_cycle(requires)
    if cycle is None:
        assert all(not mask >> i & 1 for i, mask in enumerate(graph.ancestors(requires)))
    else:
        assert all(requires[i] >> following & 1 for i, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True))


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(Duration(seconds=1, nanos=999_999), 1000), (Duration(nanos=1_000_000), 1), (Duration(seconds=3600), 3_600_000)],
)
def test_durations_become_whole_milliseconds(duration: Duration, expected: int) -> None:
    assert milliseconds(duration) == expected


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([], None),
        ([("1.0.0", False)], None),
        ([("1.9.0", True), ("1.10.0", True)], "1.10.0"),
        ([("1.9.0", True), ("2.0.0", False)], "1.9.0"),
        ([("1.0.0", True), ("2.0.0-rc.1", True)], "1.0.0"),
        ([("2.0.0-rc.1", True)], None),
        ([("1.0.0+a", True), ("1.0.0+b", True)], "1.0.0+b"),
    ],
)
def test_the_highest_active_version_that_is_no_prerelease_is_taken(
    versions: list[tuple[str, bool]], expected: str | None
) -> None:
    assert highest_active(versions) == expected
    assert highest_active(reversed(versions)) == expected


def test_versions_sort_by_precedence() -> None:
    versions = ["1.0.0", "1.0.0-rc.1", "1.0.0-rc.1.1", "0.9.9", "1.0.0-beta", "10.0.0", "2.0.0"]
    assert sorted(versions, key=version_key) == [
        "0.9.9",
        "1.0.0-beta",
        "1.0.0-rc.1",
        "1.0.0-rc.1.1",
        "1.0.0",
        "2.0.0",
        "10.0.0",
    ]
    assert is_prerelease("1.0.0-rc.1")
    assert not is_prerelease("1.0.0+build-7")
