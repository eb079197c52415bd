"""What a checked CEL expression reads and may cost, found in its syntax tree.

The library gives the tree as a serialized `cel.expr.CheckedExpr`, for which there is no Python class; it is read as
unknown fields. The numbers below are those of its `syntax.proto`.
"""

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

MAX_MACROS = 8
MAX_OUTER_READS = 4

_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = 3, 4, 5, 6, 7, 8, 9


class AstError(Exception):
    """The expression is valid CEL, and not allowed here."""


@dataclass(slots=True)
class Facts:
    """`references` are the ids of the steps whose outputs are read, `input_fields` the fields of the input that are;
    `outer_reads` counts variables read in macros."""

    references: set[str] = field(default_factory=set)
    uses_input: bool = False
    input_fields: set[str] = field(default_factory=set)
    whole_input: bool = False
    macros: int = 0
    outer_reads: int = 0
    costly: bool = False  # its cost is not in proportion to what it reads


def inspect(serialized: bytes, step_ids: frozenset[str]) -> Facts:
    """The facts of a serialized checked expression. Raises AstError."""
    facts = Facts()
    pending = [(_fields(AnyMessage.FromString(serialized).value)[4][0], False)]
    while pending:
        node, in_macro = pending.pop()
        pending += _visit(_fields(node), in_macro, step_ids, facts)
    if facts.macros > MAX_MACROS:
        raise AstError(f"has {facts.macros} macros; at most {MAX_MACROS} are allowed")
    if facts.outer_reads > MAX_OUTER_READS:
        # Every turn copies what is read: the bound is one of memory.
        raise AstError(
            f"reads input and steps {facts.outer_reads} times within macros; at most {MAX_OUTER_READS} are allowed"
        )
    return facts


def _visit(
    node: dict[int, list[Any]], in_macro: bool, step_ids: frozenset[str], facts: Facts
) -> list[tuple[bytes, bool]]:
    """Note what this node does, and return the nodes below it, each with whether it is within a macro."""
    step_id = _step_of_output(node)
    if step_id is not None:
        if step_id not in step_ids:
            raise AstError(f"there is no step {step_id!r}; the steps are {', '.join(sorted(step_ids))}")
        facts.references.add(step_id)
        facts.outer_reads += in_macro
        return []
    input_field = _field_of_input(node)
    if input_field is not None:
        facts.uses_input = True
        facts.input_fields.add(input_field)
        facts.outer_reads += in_macro
        return []
    if _IDENT in node:
        name = _text(_fields(node[_IDENT][0]), 1)
        if name == "steps":
            raise AstError('steps is read as steps.<step_id>.output or steps["<step_id>"].output only')
        if name == "input":
            facts.uses_input = facts.whole_input = True
            facts.outer_reads += in_macro
        return []
    if _COMPREHENSION in node:
        return _visit_macro(_fields(node[_COMPREHENSION][0]), in_macro, facts)
    if _STRUCT in node:
        struct = _fields(node[_STRUCT][0])
        if 1 in struct:
            raise AstError(f'builds a message {_text(struct, 1)}; build a map: {{"key": value}}')
        entries = [_fields(entry) for entry in struct.get(2, [])]
        return [(child, in_macro) for entry in entries for child in entry.get(3, []) + entry.get(4, [])]
    below: list[bytes] = []
    if _SELECT in node:
        below = _fields(node[_SELECT][0])[1]
    elif _CALL in node:
        call = _fields(node[_CALL][0])
        facts.costly |= _text(call, 2) == "matches"
        below = call.get(1, []) + call.get(3, [])
    elif _LIST in node:
        below = _fields(node[_LIST][0]).get(1, [])
    return [(child, in_macro) for child in below]


def _visit_macro(macro: dict[int, list[Any]], in_macro: bool, facts: Facts) -> list[tuple[bytes, bool]]:
    if in_macro:
        raise AstError("has a macro within a macro; chain them: list.filter(x, ...).map(x, ...)")
    variable = _text(macro, 1)
    if variable in ("input", "steps"):
        raise AstError(f"a macro's variable cannot be named {variable}")
    range_node = _fields(macro[2][0])
    if _CALL in range_node and _text(_fields(range_node[_CALL][0]), 2) != "_[_]":
        raise AstError("a macro goes over a field, an element or another macro's result, not over a computed list")
    facts.macros += 1
    facts.costly = True
    return [(macro[2][0], False), *((macro[part][0], True) for part in (4, 5, 6, 7) if part in macro)]


def _step_of_output(node: dict[int, list[Any]]) -> str | None:
    """The step_id if the node is `steps.<step_id>.output`, also in brackets or within `has()`."""
    access = _access(node)
    if access is None or access[1] != "output":
        return None
    step = _access(_fields(access[0]))
    return step[1] if step is not None and _is_variable(step[0], "steps") else None


def _field_of_input(node: dict[int, list[Any]]) -> str | None:
    """The field if the node is `input.<field>`, also in brackets or within `has()`."""
    access = _access(node)
    return access[1] if access is not None and _is_variable(access[0], "input") else None


def _is_variable(node: bytes, name: str) -> bool:
    fields = _fields(node)
    return _IDENT in fields and _text(_fields(fields[_IDENT][0]), 1) == name


def _access(node: dict[int, list[Any]]) -> tuple[bytes, str] | None:
    """What is accessed and the name, if the node is `x.name` or `x["name"]`."""
    if _SELECT in node:
        select = _fields(node[_SELECT][0])
        return select[1][0], _text(select, 2)
    if _CALL in node:
        call = _fields(node[_CALL][0])
        if _text(call, 2) == "_[_]":
            index = _fields(call[3][1])
            constant = _fields(index[_CONST][0]) if _CONST in index else {}
            if 6 in constant:
                return call[3][0], _text(constant, 6)
    return None


def _fields(message: bytes) -> dict[int, list[Any]]:
    fields: dict[int, list[Any]] = {}
    for unknown in UnknownFieldSet(Empty.FromString(message)):  # type: ignore[attr-defined]  # it is a sequence
        fields.setdefault(unknown.field_number, []).append(unknown.data)
    return fields


def _text(fields: dict[int, list[Any]], number: int) -> str:
    value = fields.get(number, [b""])[0]
    return bytes(value).decode()
