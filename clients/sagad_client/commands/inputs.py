"""Arguments as a person types them: JSON, durations, times, pairs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sagad.v1.common_pb2 import Payload
from sagad_client.commands.exits import UsageError
from sagad_client.durations import parse_duration, seconds_of
from sagad_client.payloads import to_payload


def _duration(_: Any, tokens: Sequence[Token]) -> Duration:
    return parse_duration(tokens[0].value)


def _instant(_: Any, tokens: Sequence[Token]) -> Timestamp:
    return parse_instant(tokens[0].value, datetime.now(UTC))


NOT_NEGATIVE = Number(gte=0, lt=2**63)
"""A count, or a revision."""

DurationOption = Annotated[Duration, Parameter(converter=_duration, n_tokens=1, accepts_keys=False)]
"""An option such as `5m`."""

InstantOption = Annotated[Timestamp, Parameter(converter=_instant, n_tokens=1, accepts_keys=False)]
"""An option such as `2026-01-31`, `2026-01-31T12:00Z`, or `1h` for an hour ago."""


def parse_instant(text: str, now: datetime) -> Timestamp:
    """Read a time: ISO 8601 (UTC where it names no zone), or a duration, which is so long before `now`.

    Raises:
        ValueError: it is neither.
    """
    result = Timestamp()
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        try:
            time = now - timedelta(seconds=seconds_of(parse_duration(text)))
        except (ValueError, OverflowError):
            message = f"{text!r} is no time: write 2026-01-31, 2026-01-31T12:00:00Z, or 90m for so long ago"
            raise ValueError(message) from None
    result.FromDatetime(time if time.tzinfo else time.replace(tzinfo=UTC))
    return result


def read_text(argument: str, option: str) -> str:
    """The text of an option: itself, `@file` for a file's, `-` for standard input's.

    Raises:
        UsageError: the file cannot be read.
    """
    if argument != "-" and not argument.startswith("@"):
        return argument
    try:
        return sys.stdin.read() if argument == "-" else Path(argument[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{option}: cannot read {argument[1:] or 'standard input'}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option}: {argument[1:] or 'standard input'} is not UTF-8") from error


def read_json(argument: str, option: str) -> Any:
    """The JSON of an option, `@file` or `-`. Raises UsageError."""
    text = read_text(argument, option)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{option} is no JSON: {error}; strings need quotes, as in '\"A-1\"'") from error


def read_payload(argument: str | None, option: str) -> Payload | None:
    """The payload of an option with JSON, `@file` or `-`; None where it is not given. Raises UsageError."""
    if argument is None:
        return None
    return make_payload(read_json(argument, option), option)


def make_payload(value: Any, name: str) -> Payload | None:
    """The payload of a JSON value. Raises UsageError."""
    try:
        return to_payload(value, name)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def read_pairs(arguments: Iterable[str], option: str) -> dict[str, str]:
    """The pairs of options `key=value`. Raises UsageError."""
    pairs: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {argument!r} must be key=value, such as region=eu")
        if key in pairs:
            raise UsageError(f"{option} {key!r} is given twice")
        pairs[key] = value
    return pairs
