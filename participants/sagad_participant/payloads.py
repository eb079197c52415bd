"""Payloads as Python data, and back."""

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from sagad.v1 import common_pb2
from sagad_participant.errors import BadAnswer, InvalidCall

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_JSON_DEPTH = 24
MAX_JSON_INTEGER = 2**53


def json_of(payload: common_pb2.Payload, what: str) -> Any:
    """The payload's JSON as Python data, whole numbers as int; None where there is no payload.

    Raises InvalidCall for a payload of bytes.
    """
    if payload.WhichOneof("kind") == "data":
        raise InvalidCall(f"{what} is {len(payload.data)} bytes of data, and the participant reads it as JSON")
    return _python(payload.json)


def python_of(payload: common_pb2.Payload) -> Any:
    """JSON as Python data, data as bytes, None where there is no payload."""
    return payload.data if payload.WhichOneof("kind") == "data" else _python(payload.json)


def struct_as_dict(struct: Struct) -> dict[str, Any]:
    """A Struct as Python data."""
    return {key: _python(value) for key, value in struct.fields.items()}


def payload_of(value: object) -> common_pb2.Payload:
    """A handler's result as a payload: None is none, bytes are data, everything else must be JSON.

    Raises BadAnswer, which names the place, for what is no JSON, cannot be stored or is too large.
    """
    payload = common_pb2.Payload()
    if isinstance(value, bytes):
        payload.data = value
    elif value is not None:
        _fill(payload.json, value, "output", 0)
    if (size := payload.ByteSize()) > MAX_PAYLOAD_BYTES:
        raise BadAnswer(f"output has {size:,} bytes, at most {MAX_PAYLOAD_BYTES:,} are allowed")
    return payload


def struct_of(details: Mapping[str, object]) -> Struct:
    """Details of a refusal. Raises BadAnswer like payload_of."""
    struct = Struct()
    for key, value in details.items():
        _fill(struct.fields[_text(key, "details")], value, f"details.{key}", 1)
    return struct


def _python(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= MAX_JSON_INTEGER else number
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return struct_as_dict(value.struct_value)
        case "list_value":
            return [_python(item) for item in value.list_value.values]
    return None


def _fill(target: Value, value: object, path: str, depth: int) -> None:
    if depth > MAX_JSON_DEPTH:
        raise BadAnswer(f"{path} is nested deeper than {MAX_JSON_DEPTH} levels")
    if value is None:
        target.null_value = 0  # type: ignore[assignment] # the one value of the enum
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = _text(value, path)
    elif isinstance(value, int | float):
        target.number_value = _number(value, path)
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        for key, item in value.items():
            _fill(target.struct_value.fields[_text(key, path)], item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        target.list_value.SetInParent()
        for index, item in enumerate(value):
            _fill(target.list_value.values.add(), item, f"{path}[{index}]", depth + 1)
    else:
        raise BadAnswer(f"{path} is a {type(value).__name__}, which is not JSON; convert it to text or a number first")


def _text(text: object, path: str) -> str:
    if not isinstance(text, str):
        raise BadAnswer(f"{path} has a key of type {type(text).__name__}; keys of JSON objects are text")
    if "\0" in text:
        raise BadAnswer(f"{path} holds a NUL character, which PostgreSQL cannot store; remove it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadAnswer(f"{path} holds a lone surrogate, which is no valid Unicode; remove it") from None
    return text


def _number(number: float, path: str) -> float:
    if isinstance(number, int) and abs(number) > MAX_JSON_INTEGER:
        raise BadAnswer(f"{path} is an integer beyond 2^53, which JSON numbers cannot hold exactly; send it as text")
    if not math.isfinite(number):
        raise BadAnswer(f"{path} is {number}, which is no JSON number")
    return float(number)
