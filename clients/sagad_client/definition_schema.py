"""Checks a tree of plain values against a protobuf message, and names every fault by its path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass

from sagad_client.durations import parse_duration

_EXPECTED = {
    FieldDescriptor.CPPTYPE_STRING: "a string",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_INT32: "a whole number",
    FieldDescriptor.CPPTYPE_INT64: "a whole number",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_MESSAGE: "a date and time such as 2026-01-31T12:00:00Z",
}


class Checker:
    """Turns values as a person writes them into ProtoJSON, and collects the faults on the way.

    Keys may be written in snake_case or camelCase, durations as `5m` or `300s`; all else is exactly ProtoJSON.
    """

    def __init__(self) -> None:
        self.faults: list[tuple[str, str]] = []
        """(path, what is wrong), in the order of the file."""

    def message(self, value: object, descriptor: Descriptor, path: str = "") -> dict[str, Any]:
        """The ProtoJSON of a message of this type."""
        if not isinstance(value, Mapping):
            self._fault(path, f"must be a mapping of the fields of {descriptor.name}, not {_shown(value)}")
            return {}
        fields = {name: field for field in descriptor.fields for name in (field.name, field.json_name)}
        result: dict[str, Any] = {}
        for key, item in value.items():
            here = f"{path}.{key}" if path else str(key)
            field = fields.get(str(key))
            if field is None:
                self._fault(here, _unknown_key(str(key), descriptor))
            elif field.json_name in result:
                self._fault(here, f"is given twice, as {field.name} and as {field.json_name}")
            elif item is not None:  # in ProtoJSON, null is the same as leaving the key out
                result[field.json_name] = self._field(item, field, here)
        return result

    def _field(self, value: object, field: FieldDescriptor, path: str) -> object:
        if not field.is_repeated:
            return self._single(value, field, path)
        if not isinstance(value, list):
            self._fault(path, f"must be a list, not {_shown(value)}")
            return []
        return [self._single(item, field, f"{path}[{index}]") for index, item in enumerate(value)]

    def _single(self, value: object, field: FieldDescriptor, path: str) -> object:
        kind = field.message_type
        if kind is not None and kind.full_name == Duration.DESCRIPTOR.full_name:
            return self._duration(value, path)
        if kind is not None and not kind.full_name.startswith("google.protobuf."):
            return self.message(value, kind, path)
        return self._scalar(value, field, path)

    def _duration(self, value: object, path: str) -> object:
        try:
            if isinstance(value, str):
                return parse_duration(value).ToJsonString()
        except ValueError as error:
            self._fault(path, str(error))
            return "0s"
        hint = f', such as "{value}s"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
        self._fault(path, f"must be a duration with its unit{hint}, not {_shown(value)}")
        return "0s"

    def _scalar(self, value: object, field: FieldDescriptor, path: str) -> object:
        alone = [value] if field.is_repeated else value
        owner = cast(Descriptor, field.containing_type)  # only extensions have none
        try:
            message = GetMessageClass(owner)()
            json_format.ParseDict({field.json_name: alone}, message)
            message.SerializeToString()  # refuses what UTF-8 cannot express
        except (json_format.ParseError, ValueError, TypeError):
            self._fault(path, f"must be {_expected(value, field)}, not {_shown(value)}")
            return [] if field.is_repeated else None
        return value

    def _fault(self, path: str, text: str) -> None:
        self.faults.append((path, text))


def _expected(value: object, field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return "one of " + ", ".join(name.name for name in field.enum_type.values if name.number)
    expected = _EXPECTED.get(field.cpp_type, "another value")
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and isinstance(value, int | float):
        return f"{expected} (put it in quotes)"
    return expected


def _unknown_key(key: str, descriptor: Descriptor) -> str:
    names = [field.name for field in descriptor.fields]
    close = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {close[0]}?" if close else "it has " + ", ".join(names)
    return f"is no field of {descriptor.name}: {hint}"


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case list():
            return "a list"
        case Mapping():
            return "a mapping"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case _:
            return f"the number {value}"
