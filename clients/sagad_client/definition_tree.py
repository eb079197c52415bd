"""Reads the text of a definition file, YAML or JSON, into plain values, and remembers on which line each stands."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

_MAX_DEPTH = 32


class Tree:
    """The documents of a file.

    Raises:
        TreeError: the text is no YAML, or no JSON.
    """

    def __init__(
        self, documents: list[Any], lines: dict[tuple[int, str], int], faults: list[tuple[int, str, str]]
    ) -> None:
        self.documents = documents
        """Plain values: dict, list, str, int, float, bool, None."""
        self.lines = lines
        """Line, from 1, of each (index of the document, path); empty for JSON."""
        self.faults = faults
        """(index of the document, path, what is wrong) of what plain values cannot show: keys given twice."""


class TreeError(ValueError):
    """The text cannot be read at all."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


class _JsonSchemaLoader(yaml.SafeLoader):
    """YAML with JSON's scalars: `no`, `1_000` and `2026-01-31` are strings, as in YAML 1.2's JSON schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", "-0123456789"),
):
    _JsonSchemaLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_yaml(text: str) -> Tree:
    """Read YAML of one or more documents."""
    builder = _Builder()
    try:
        for node in yaml.compose_all(text, Loader=_JsonSchemaLoader):
            builder.document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise TreeError(f"is no YAML: {error.problem}", mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise TreeError(f"is no YAML: {error}", None) from error
    return Tree(builder.documents, builder.lines, builder.faults)


def read_json(text: str) -> Tree:
    """Read one JSON document."""
    try:
        document = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise TreeError(f"is no JSON: {error.msg}", error.lineno) from error
    except RecursionError as error:
        raise TreeError("is nested too deeply", None) from error
    return Tree([document], {}, [(0, path, text) for path, text in _repeated(document, "")])


class _Object(dict[str, Any]):
    """A JSON object that remembers the keys it was given twice."""

    repeated: list[str]


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    value = _Object(pairs)
    keys = [key for key, _ in pairs]
    value.repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(keys) > len(value) else []
    return value


def _repeated(value: object, path: str) -> list[tuple[str, str]]:
    if isinstance(value, _Object):
        own = [(join(path, key), "is given twice") for key in value.repeated]
        return own + [fault for key, item in value.items() for fault in _repeated(item, join(path, key))]
    if isinstance(value, list):
        return [fault for index, item in enumerate(value) for fault in _repeated(item, f"{path}[{index}]")]
    return []


def join(path: str, key: str) -> str:
    """The path of a key of the mapping at `path`."""
    return f"{path}.{key}" if path else key


class _Builder:
    """Makes plain values of YAML's nodes."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self.lines: dict[tuple[int, str], int] = {}
        self.faults: list[tuple[int, str, str]] = []

    def document(self, node: yaml.Node) -> None:
        self.documents.append(self._value(node, "", 0))

    def _value(self, node: yaml.Node, path: str, depth: int) -> Any:
        here = len(self.documents), path
        self.lines.setdefault(here, node.start_mark.line + 1)
        if depth > _MAX_DEPTH:  # an alias may point to what it stands in
            raise TreeError("is nested too deeply", node.start_mark.line + 1)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path, depth)
            case yaml.SequenceNode():
                return [self._value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise TreeError("has a key that is no string", key_node.start_mark.line + 1)
            key = key_node.value
            here = join(path, key)
            self.lines[len(self.documents), here] = key_node.start_mark.line + 1
            if key in result:
                self.faults.append((len(self.documents), here, "is given twice"))
            result[key] = self._value(value_node, here, depth + 1)
        return result

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        text: str = node.value
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text == "true"
            case "int":
                return int(text)
            case "float":
                return float(text)
        self.faults.append((len(self.documents), path, f"has the tag {node.tag}, which definitions do not know"))
        return None
