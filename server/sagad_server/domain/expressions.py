"""Expressions of a definition, in CEL: the only module that knows it.

Two variables: `input`, the saga's input as JSON, and `steps`, of which an expression reads `steps.<step_id>.output` (or
`steps["<step_id>"].output`), the output of a step as JSON. A skipped step has none: `has(steps.<step_id>.output)` is
false. JSON numbers are doubles: `input.qty + 1.0`. In the result integers beyond 2^53 become strings, bytes become
base64, times and durations their ProtoJSON text. There is no clock and no chance in CEL; only the order in which a
macro goes over a map's keys is not defined.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from google.protobuf import struct_pb2

from sagad.v1 import common_pb2
from sagad_server.domain.cel_ast import AstError, inspect
from sagad_server.domain.payloads import MAX_PAYLOAD_BYTES, json_fault, most_elements

MAX_SOURCE_BYTES = 1024
MAX_COSTLY_BYTES = 32 * 1024
"""Bound of the JSON that an expression with a macro or `matches` reads: each turn of a macro copies what it reads."""
MAX_COSTLY_ELEMENTS = 1000
"""Bound of its lists and maps: `map` and `filter` take a time that grows with the square (1,000 elements: 20 ms)."""
MAX_MESSAGE_LENGTH = 400
_SMALLEST_ELEMENT_BYTES = 4

_COMPILE_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_EXPECTED_TOKENS = re.compile(r" expecting \{.*?IDENTIFIER\}")
_STATUS = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")

_ENV = cel.NewEnv(
    variables={
        "input": cel.Type.DYN,
        "steps": cel.Type.Map(cel.Type.STRING, cel.Type.Map(cel.Type.STRING, cel.Type.DYN)),
    }
)
_NULL = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
_NO_OUTPUT: Mapping[str, Any] = {}


class ExpressionError(Exception):
    """An expression cannot be compiled or evaluated. The message is for its author."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. `references` are the ids of the steps whose outputs it reads, `input_fields` the fields of
    the saga's input (None: the input as a whole)."""

    source: str
    references: frozenset[str]
    uses_input: bool
    input_fields: frozenset[str] | None
    costly: bool
    _program: Any = field(repr=False, compare=False)


def compile_expression(source: str, *, step_ids: Sequence[str], condition: bool = False) -> Expression:
    """Compile an expression, or with `condition` one that must be a bool.

    Unknown names and steps, wrong types and what could cost too much are found here: raises ExpressionError.
    """
    return _compile(source, tuple(step_ids), condition)


@lru_cache(maxsize=2048)
def _compile(source: str, step_ids: tuple[str, ...], condition: bool) -> Expression:
    size = len(source.encode())
    if size > MAX_SOURCE_BYTES:
        raise ExpressionError(f"has {size} bytes; at most {MAX_SOURCE_BYTES} are allowed")
    try:
        program = _ENV.compile(source)
        facts = inspect(program.serialize(), frozenset(step_ids))
        if condition:
            kind = program.return_type()
            if kind not in (cel.Type.BOOL, cel.Type.DYN):
                raise ExpressionError(f"must be of type bool, and is of type {kind.name().lower()}")
        else:
            # So the library itself turns the result into a message; the line break ends a comment of the source.
            program = _ENV.compile(f"sagad.v1.Payload{{json: ({source}\n)}}")
    except RuntimeError as error:  # what the library raises for every fault of the source
        raise ExpressionError(_readable(error) + _dash_advice(source, step_ids)) from None
    except AstError as error:
        raise ExpressionError(str(error) + _dash_advice(source, step_ids)) from None
    input_fields = None if facts.whole_input else frozenset(facts.input_fields)
    return Expression(source, frozenset(facts.references), facts.uses_input, input_fields, facts.costly, program)


def failing_expression(message: str) -> Expression:
    """An expression whose evaluation always fails with the message: for exploring what follows from that."""
    nothing: frozenset[str] = frozenset()
    return Expression("", nothing, uses_input=False, input_fields=nothing, costly=False, _program=_Failing(message))


@dataclass(frozen=True, slots=True)
class _Failing:
    message: str

    def eval(self, data: object) -> object:
        raise RuntimeError(self.message)


def evaluate(
    expression: Expression, saga_input: common_pb2.Payload | None, outputs: Mapping[str, common_pb2.Payload]
) -> common_pb2.Payload:
    """The expression's value as a payload of kind json. `outputs` are those of the steps that have succeeded.

    Raises ExpressionError, also where the value is no JSON or is larger than 256 KiB.
    """
    result = _run(expression, saga_input, outputs)
    assert isinstance(result, common_pb2.Payload), type(result)
    size = result.ByteSize()
    if size > MAX_PAYLOAD_BYTES:
        raise ExpressionError(f"the result has {size} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")
    fault = json_fault(result.json)
    if fault is not None:
        raise ExpressionError(f"the result {fault}")
    return result


def evaluate_condition(
    expression: Expression, saga_input: common_pb2.Payload | None, outputs: Mapping[str, common_pb2.Payload]
) -> bool:
    """The value of an expression that was compiled as a condition. Raises ExpressionError, also where it is no bool."""
    result = _run(expression, saga_input, outputs)
    if not isinstance(result, bool):
        raise ExpressionError("the result is no bool")
    return result


def _run(
    expression: Expression, saga_input: common_pb2.Payload | None, outputs: Mapping[str, common_pb2.Payload]
) -> object:
    data: dict[str, Any] = {}
    if expression.uses_input:
        data["input"] = _json(saga_input, "the saga's input") if saga_input is not None else _NULL
    if expression.references:
        data["steps"] = {
            step_id: {"output": _json(outputs[step_id], f"the output of step {step_id!r}")}
            if step_id in outputs
            else _NO_OUTPUT
            for step_id in expression.references
        }
    if expression.costly:
        _check_cost(expression, saga_input, outputs)
    try:
        result = expression._program.eval(data=data)
        value: object = result.value()
    except RuntimeError as error:
        raise ExpressionError(_readable(error)) from None
    if isinstance(value, str) and result.type() == cel.Type.ERROR:  # most errors come back as values
        raise _failed(expression, outputs, value)
    return value


def _check_cost(
    expression: Expression, saga_input: common_pb2.Payload | None, outputs: Mapping[str, common_pb2.Payload]
) -> None:
    payloads = [outputs[step_id] for step_id in expression.references if step_id in outputs]
    if expression.uses_input and saga_input is not None:
        payloads.append(saga_input)
    size = sum(payload.ByteSize() for payload in payloads)
    if size > MAX_COSTLY_BYTES:
        raise ExpressionError(
            f"reads {size:,} bytes of JSON; at most {MAX_COSTLY_BYTES:,} are allowed with a macro or matches()"
        )
    if size < MAX_COSTLY_ELEMENTS * _SMALLEST_ELEMENT_BYTES:
        return
    elements = max(most_elements(payload.json) for payload in payloads)
    if elements > MAX_COSTLY_ELEMENTS:
        bound = f"at most {MAX_COSTLY_ELEMENTS:,} are allowed with a macro or matches()"
        raise ExpressionError(f"reads a list or map of {elements:,} elements; {bound}")


def _json(payload: common_pb2.Payload, what: str) -> Any:
    if payload.WhichOneof("kind") == "data":
        raise ExpressionError(f"{what} is bytes; expressions read JSON only")
    return payload.json


def _failed(expression: Expression, outputs: Mapping[str, common_pb2.Payload], error: object) -> ExpressionError:
    message = _readable(error)
    skipped = sorted(expression.references - outputs.keys())
    if skipped and '"output"' in message:
        message += f"; {', '.join(skipped)} has no output because it was skipped: ask has(steps.<step_id>.output) first"
    return ExpressionError(message)


def _dash_advice(source: str, step_ids: tuple[str, ...]) -> str:
    dashed = [step_id for step_id in step_ids if "-" in step_id and f"steps.{step_id}" in source]
    return f"; a step_id with '-' needs brackets: steps[\"{dashed[0]}\"].output" if dashed else ""


def _readable(error: object) -> str:
    """What the library says, in one line, without its internal names."""
    text = _STATUS.sub("", str(error))
    faults = _COMPILE_ERROR.findall(text)
    if faults:
        text = "; ".join(f"{what} (line {line}, column {column})" for line, column, what in faults)
    text = _EXPECTED_TOKENS.sub("", text).replace(" (in container '')", "").replace("int64", "int")
    if "overload" in text and "double" in text and "int" in text:
        text += "; JSON numbers are doubles: write 1.0 instead of 1, or convert with double()"
    return text if len(text) <= MAX_MESSAGE_LENGTH else text[:MAX_MESSAGE_LENGTH] + "..."
