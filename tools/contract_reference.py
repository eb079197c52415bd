#!/usr/bin/env python3
"""Writes docs/reference/contract.md from the .proto files and their comments; with --check it only compares.

Run it with the interpreter of .venv-dev, which has buf beside it.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "contract.md"
PACKAGE = "sagad.v1"
SERVICES = ("SagaService", "DefinitionService", "AdminService", "ParticipantService")
INTRODUCTION = """# The contract `sagad.v1`

Everything that goes over the wire, from `proto/sagad/v1`. sagad serves SagaService, DefinitionService and AdminService,
beside server reflection and `grpc.health.v1`; a participant serves ParticipantService. [Errors](errors.md) and the
[rules of a saga](../explanation/semantics.md) have pages of their own.

This page is made from the comments of the `.proto` files by `python tools/contract_reference.py`.
"""
# Numbers of fields in descriptor.proto, of which the paths of comments are made.
MESSAGES, ENUMS, SERVICES_OF_FILE = 4, 5, 6
FIELDS, ONEOFS, VALUES, METHODS = 2, 8, 2, 2


@dataclass(frozen=True)
class Part:
    """A message, enum or service, and the comments about it by path relative to it."""

    descriptor: Any
    comments: dict[tuple[int, ...], str]

    def comment(self, *path: int) -> str:
        return self.comments.get(path, "")


def main() -> int:
    page = render(image())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page
    if stale:
        print(f"{PAGE} is stale: run python tools/contract_reference.py")
    return int(stale)


def image() -> FileDescriptorSet:
    """All .proto files, with their comments."""
    buf = Path(sys.executable).parent / "buf"
    built = subprocess.run([buf, "build", "proto", "--output", "-"], check=True, capture_output=True, cwd=ROOT)
    return FileDescriptorSet.FromString(built.stdout)


def render(files: FileDescriptorSet) -> str:
    parts: dict[str, Part] = {}
    for file in files.file:
        if file.package == PACKAGE:
            parts |= _parts(file)
    services = [parts[name] for name in SERVICES]
    asked = {
        _short(name)
        for service in services
        for method in service.descriptor.method
        for name in (method.input_type, method.output_type)
    }
    held = {_short(field.type_name) for part in parts.values() for field in getattr(part.descriptor, "field", ())}
    asked -= held  # what fields link to stands among the messages too
    blocks = [INTRODUCTION]
    for service in services:
        blocks += _service(service, parts)
    rest = [part for name, part in parts.items() if name not in asked]
    messages = [part for part in rest if isinstance(part.descriptor, DescriptorProto)]
    blocks.append("## Messages\n")
    blocks += [f"### {part.descriptor.name}\n\n{part.comment()}\n\n{_fields(part)}" for part in messages]
    enums = [part for part in rest if isinstance(part.descriptor, EnumDescriptorProto)]
    blocks.append("## Enums\n")
    blocks += [f"### {part.descriptor.name}\n\n{part.comment()}\n\n{_values(part)}" for part in enums]
    page = "\n".join(blocks)
    for service in services:
        for method in service.descriptor.method:  # what is asked for has its fields there, also within another request
            heading = f"{service.descriptor.name}{method.name}".lower()
            page = page.replace(f"(#{_short(method.input_type).lower()})", f"(#{heading})")
    return page


def _parts(file: FileDescriptorProto) -> dict[str, Part]:
    comments = {tuple(one.path): _text(one.leading_comments) for one in file.source_code_info.location}
    found = {}
    for kind, descriptors in ((MESSAGES, file.message_type), (ENUMS, file.enum_type), (SERVICES_OF_FILE, file.service)):
        for index, descriptor in enumerate(descriptors):
            own = {path[2:]: text for path, text in comments.items() if path[:2] == (kind, index)}
            found[descriptor.name] = Part(descriptor, own)
    return found


def _text(comment: str) -> str:
    """A comment as it was written, without the space at the beginning of each line."""
    return "\n".join(line.removeprefix(" ") for line in comment.rstrip().split("\n"))


def _service(service: Part, parts: dict[str, Part]) -> Iterator[str]:
    descriptor: ServiceDescriptorProto = service.descriptor
    yield f"## {descriptor.name}\n\n{service.comment()}\n"
    for index, method in enumerate(descriptor.method):
        request, response = _short(method.input_type), _short(method.output_type)
        answer = "A stream of" if method.server_streaming else "Response"
        yield f"### {descriptor.name}.{method.name}\n\n{service.comment(METHODS, index)}\n"
        asked = "A stream of" if method.client_streaming else "Request"
        yield f"{asked} `{request}`:\n\n{_fields(parts[request])}"
        yield f"{answer} `{response}`:\n\n{_fields(parts[response])}"


def _fields(part: Part) -> str:
    message: DescriptorProto = part.descriptor
    if not message.field:
        return "No fields.\n"
    rows = ["| field | type | meaning |", "| --- | --- | --- |"]
    for index, field in enumerate(message.field):
        meaning = part.comment(FIELDS, index)
        if field.HasField("oneof_index") and not field.proto3_optional:
            name = message.oneof_decl[field.oneof_index].name
            meaning = f"One of `{name}`. {meaning}"
        rows.append(f"| `{field.name}` | {_type(field, message)} | {_cell(meaning)} |")
    notes = [
        f"`{oneof.name}`: {_cell(text)}"
        for index, oneof in enumerate(message.oneof_decl)
        if (text := part.comment(ONEOFS, index))
    ]
    return "\n".join(rows) + "\n" + "".join(f"\n{note}\n" for note in notes)


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    nested = {one.name: one for one in message.nested_type}
    entry = nested.get(_short(field.type_name))
    if entry is not None and entry.options.map_entry:
        key, value = entry.field
        return f"map of {_type(key, message)} to {_type(value, message)}"
    name = _name(field)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _name(field: FieldDescriptorProto) -> str:
    if not field.type_name:
        return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    name = _short(field.type_name)
    return f"[{name}](#{name.lower()})" if field.type_name.startswith(f".{PACKAGE}.") else name


def _values(part: Part) -> str:
    rows = ["| value | number | meaning |", "| --- | --- | --- |"]
    for index, value in enumerate(part.descriptor.value):
        meaning = part.comment(VALUES, index).removeprefix(value.name).lstrip(": ")
        rows.append(f"| `{value.name}` | {value.number} | {_cell(meaning)} |")
    return "\n".join(rows) + "\n"


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
