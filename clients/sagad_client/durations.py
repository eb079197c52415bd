"""Durations: text such as `5m` or `1h30m`, Python's timedelta and seconds, and protobuf's Duration."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

from google.protobuf.duration_pb2 import Duration

_HINT = "write it as a number and a unit, such as 500ms, 90s, 5m, 1h30m or 30d"

_NANOS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_MAX_SECONDS = 315_576_000_000  # protobuf's own bound, 10,000 years

DurationLike = timedelta | float | int | Duration
"""What the client takes for a duration; numbers are seconds."""


def parse_duration(text: str) -> Duration:
    """Read a duration such as `500ms`, `90s`, `1.5h` or `1h30m`. Units: ns, us, ms, s, m, h, d.

    Raises:
        ValueError: it is none, or longer than 10,000 years.
    """
    stripped = text.strip()
    if not _WHOLE.fullmatch(stripped):
        raise ValueError(f"{text!r} is no duration: {_HINT}")
    nanos = sum(int(Decimal(number) * _NANOS[unit]) for number, unit in _PART.findall(stripped))
    return _from_nanos(nanos, text)


def to_duration(value: DurationLike) -> Duration:
    """Turn a timedelta, a number of seconds or a Duration into a Duration.

    Raises:
        ValueError: it is negative, not finite, or longer than 10,000 years.
        TypeError: it is something else.
    """
    if isinstance(value, Duration):
        return value
    if isinstance(value, timedelta):
        micros = (value.days * 86400 + value.seconds) * 10**6 + value.microseconds
        return _from_nanos(micros * 1000, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a duration is a timedelta or a number of seconds, not {type(value).__name__}")
    try:
        return _from_nanos(round(value * 10**9), value)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{value!r} is no duration of 0 s to {_MAX_SECONDS} s") from error


def seconds_of(duration: Duration) -> float:
    """The duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def format_duration(duration: Duration) -> str:
    """The duration for a person, in its two largest units: `1h 30m`, `2m 5s`, `1.25s`, `200ms`."""
    nanos = abs(duration.seconds * 10**9 + duration.nanos)
    sign = "-" if duration.seconds < 0 or duration.nanos < 0 else ""
    return sign + _format_nanos(nanos)


def _format_nanos(nanos: int) -> str:
    if nanos < 10**9:
        return f"{nanos / 10**6:.3g}ms" if nanos else "0s"
    if nanos < 60 * 10**9:
        return f"{nanos / 10**9:.4g}s"
    for large, small in (("d", "h"), ("h", "m"), ("m", "s")):
        if nanos >= _NANOS[large]:
            whole, rest = divmod(nanos, _NANOS[large])
            remainder = rest // _NANOS[small]
            return f"{whole}{large} {remainder}{small}" if remainder else f"{whole}{large}"
    raise AssertionError(nanos)


def _from_nanos(nanos: int, value: object) -> Duration:
    if not 0 <= nanos <= _MAX_SECONDS * 10**9:
        raise ValueError(f"{value!r} is no duration of 0 s to {_MAX_SECONDS} s")
    seconds, rest = divmod(nanos, 10**9)
    return Duration(seconds=seconds, nanos=rest)
