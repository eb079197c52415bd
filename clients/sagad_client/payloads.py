"""Payloads from Python values and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from sagad.v1.common_pb2 import Payload

Json: TypeAlias = bool | int | float | str | Sequence[Any] | Mapping[str, Any] | None
"""A JSON value; what lists and objects hold is checked when it is used."""

PayloadLike: TypeAlias = Json | bytes | Payload
"""What the client takes for a payload: a JSON value, opaque bytes, a Payload, or None for no payload at all."""

_MAX_EXACT = 2**53  # JSON numbers travel as doubles
_MAX_DEPTH = 32  # deeper messages are refused by protobuf's parsers


def to_payload(value: PayloadLike, field: str = "input") -> Payload | None:
    """Make a payload of a JSON value or of bytes; None stays None, which means that there is no payload.

    (A JSON `null` of its own is `Payload(json=Value(null_value=NULL_VALUE))`.)

    Raises:
        ValueError: a number is not finite or beyond 2^53, or the nesting is deeper than 32. The message names the path.
        TypeError: something in it is no JSON value. The message names the path.
    """
    if value is None or isinstance(value, Payload):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return Payload(data=bytes(value))
    return Payload(json=to_value(value, field))


def to_value(value: Json, path: str = "value", depth: int = 0) -> Value:
    """Make a protobuf Value of a JSON value. Raises like `to_payload`."""
    if value is None:
        return Value(null_value=NULL_VALUE)
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, str):
        return Value(string_value=_text(value, path))
    if isinstance(value, int | float):
        return Value(number_value=_number(value, path))
    if depth == _MAX_DEPTH:
        raise ValueError(f"{path} is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return Value(struct_value=to_struct(value, path, depth))
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        items = [to_value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        return Value(list_value=ListValue(values=items))
    raise TypeError(f"{path} is a {type(value).__name__}, which is no JSON value")


def to_struct(value: Mapping[str, Json], path: str = "value", depth: int = 0) -> Struct:
    """Make a protobuf Struct of a JSON object. Raises like `to_payload`."""
    fields = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{path} has the key {key!r}: the keys of a JSON object are strings")
        fields[_text(key, path)] = to_value(item, f"{path}.{key}", depth + 1)
    return Struct(fields=fields)


def from_payload(payload: Payload) -> Json | bytes:
    """The Python value of a payload: JSON as dict, list, str, float, int (for whole numbers), bool or None; or bytes.

    A payload that is unset gives None, as JSON's null does; `payload.WhichOneof("kind")` tells them apart.
    """
    kind = payload.WhichOneof("kind")
    if kind == "data":
        return payload.data
    return from_value(payload.json) if kind == "json" else None


def from_value(value: Value) -> Json:
    """The Python value of a protobuf Value."""
    kind = value.WhichOneof("kind")
    match kind:
        case "struct_value":
            return {key: from_value(item) for key, item in value.struct_value.fields.items()}
        case "list_value":
            return [from_value(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _MAX_EXACT else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _number(value: float, path: str) -> float:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value!r}, which JSON does not know")
        return value
    if abs(value) > _MAX_EXACT:
        raise ValueError(f"{path} is {value}, beyond 2^53, where a JSON number is not exact: write it as a string")
    return float(value)


def _text(value: str, path: str) -> str:
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(f"{path} contains a NUL character or half of a surrogate pair")
    return value
