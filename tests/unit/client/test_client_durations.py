from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from sagad_client.durations import format_duration, parse_duration, to_duration


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("500ms", 0, 500_000_000),
        ("90s", 90, 0),
        ("5m", 300, 0),
        ("1h", 3600, 0),
        ("1h30m", 5400, 0),
        ("1.5h", 5400, 0),
        ("30d", 2_592_000, 0),
        ("0s", 0, 0),
        (" 3s ", 3, 0),
        ("0.000000001s", 0, 1),
        ("3.000000001s", 3, 1),
    ],
)
def test_a_duration_is_read_exactly(text: str, seconds: int, nanos: int) -> None:
    assert parse_duration(text) == Duration(seconds=seconds, nanos=nanos)


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "-5s", "1e3s", "5min", "5m!", "٣s", "99999999999999d"])
def test_what_is_no_duration_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@given(st.integers(0, 315_576_000_000), st.integers(0, 999_999_999))
def test_protobufs_own_text_of_a_duration_reads_as_the_same(seconds: int, nanos: int) -> None:
    if seconds == 315_576_000_000:
        nanos = 0
    duration = Duration(seconds=seconds, nanos=nanos)
    assert parse_duration(duration.ToJsonString()) == duration


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (timedelta(minutes=5, microseconds=7), Duration(seconds=300, nanos=7000)),
        (1.25, Duration(seconds=1, nanos=250_000_000)),
        (3, Duration(seconds=3)),
        (Duration(seconds=4), Duration(seconds=4)),
    ],
)
def test_pythons_durations_are_taken(value: timedelta | float | Duration, expected: Duration) -> None:
    assert to_duration(value) == expected


@pytest.mark.parametrize("value", [-1, timedelta(seconds=-1), float("nan"), float("inf"), 1e15])
def test_impossible_durations_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        to_duration(value)


def test_a_bool_is_no_duration() -> None:
    with pytest.raises(TypeError, match="not bool"):
        to_duration(True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0s", "0s"),
        ("1us", "0.001ms"),
        ("200ms", "200ms"),
        ("1.25s", "1.25s"),
        ("59.9s", "59.9s"),
        ("60s", "1m"),
        ("125s", "2m 5s"),
        ("90m", "1h 30m"),
        ("24h", "1d"),
        ("36h", "1d 12h"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(text: str, shown: str) -> None:
    assert format_duration(parse_duration(text)) == shown
