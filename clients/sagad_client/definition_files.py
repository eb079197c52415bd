"""Definition files: the ProtoJSON of Definition as YAML or JSON, with durations as a person writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from sagad.v1.definition_pb2 import Definition
from sagad_client.definition_schema import Checker
from sagad_client.definition_tree import Tree, TreeError, read_json, read_yaml


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a file."""

    path: str
    """Path of the key, such as `steps[2].timeout`; empty where the file as a whole is meant."""
    line: int | None
    """Line in the file, from 1, where it is known."""
    message: str
    """What is wrong there."""


class DefinitionFileError(ValueError):
    """A definition file cannot be read; `faults` lists everything that is wrong with it."""

    def __init__(self, source: str, faults: list[Fault]) -> None:
        self.source = source
        """The file."""
        self.faults = faults
        """Everything that is wrong."""
        super().__init__("\n".join(_shown(source, fault) for fault in faults))


def load_definitions(path: str | Path) -> list[Definition]:
    """Read the definitions of a file: YAML of one or more documents, or JSON where the name ends in `.json`.

    Each document is one definition or a list of them. It is exactly the ProtoJSON of `Definition`, with keys in
    snake_case or camelCase, except that durations may also be written as `500ms`, `90s`, `5m` or `1h30m`. What values
    are allowed is checked by the server.

    Raises:
        OSError: the file cannot be read.
        DefinitionFileError: it holds no definition, or something else; all faults at once.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DefinitionFileError(str(file), [Fault("", None, f"is not UTF-8 at byte {error.start}")]) from error
    return parse_definitions(text, source=str(file), json=file.suffix == ".json")


def parse_definitions(text: str, *, source: str = "<text>", json: bool = False) -> list[Definition]:
    """Read the definitions of a text, as `load_definitions` does of a file; `source` stands for it in errors.

    Raises:
        DefinitionFileError: the text holds no definition, or something else; all faults at once.
    """
    try:
        tree = read_json(text) if json else read_yaml(text)
    except TreeError as error:
        raise DefinitionFileError(source, [Fault("", error.line, str(error))]) from error
    reader = _Reader(tree)
    definitions = reader.definitions()
    if not definitions and not reader.faults:
        reader.faults.append(Fault("", None, "holds no definition"))
    if reader.faults:
        raise DefinitionFileError(source, sorted(reader.faults, key=lambda fault: fault.line or 0))
    return definitions


class _Reader:
    """Makes definitions of a tree, and collects its faults."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.faults = [self._fault(index, path, text) for index, path, text in tree.faults]

    def definitions(self) -> list[Definition]:
        found = []
        for index, document in enumerate(self._tree.documents):
            if document is None:
                continue  # an empty document, as after a last `---`
            items = document if isinstance(document, list) else [document]
            for number, item in enumerate(items):
                found.append(self._definition(index, f"[{number}]" if isinstance(document, list) else "", item))
        return found

    def _definition(self, index: int, path: str, value: Any) -> Definition:
        checker = Checker()
        proto_json = checker.message(value, Definition.DESCRIPTOR, path)
        self.faults += [self._fault(index, *fault) for fault in checker.faults]
        return Definition() if checker.faults else json_format.ParseDict(proto_json, Definition())

    def _fault(self, index: int, path: str, text: str) -> Fault:
        return Fault(path, self._tree.lines.get((index, path)), text)


def _shown(source: str, fault: Fault) -> str:
    line = f":{fault.line}" if fault.line else ""
    path = f"{fault.path} " if fault.path else ""
    return f"{source}{line}: {path}{fault.message}"
