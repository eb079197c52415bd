"""Which resources a saga is to have for itself: the names that its definition's `locks` give."""

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.definition import Definition
from sagad_server.domain.errors import InvalidArgument, Violation
from sagad_server.domain.expressions import Expression, ExpressionError, evaluate

MAX_LOCKS = 16
MAX_NAME_BYTES = 256


def lock_names(definition: Definition, saga_input: Payload | None) -> tuple[str, ...]:
    """The names, each once, in the order in which every saga takes them: so no two of them wait for each other.

    Raises InvalidArgument, naming each expression that gives no name.
    """
    names, violations = set(), []
    for index, expression in enumerate(definition.locks):
        try:
            names.add(_name(expression, saga_input))
        except ExpressionError as error:
            violations.append(Violation("input", f"names no lock by locks[{index}], {expression.source!r}: {error}"))
    if violations:
        raise InvalidArgument.of(violations)
    return tuple(sorted(names))


def _name(expression: Expression, saga_input: Payload | None) -> str:
    value = evaluate(expression, saga_input, {}).json
    if value.WhichOneof("kind") != "string_value":
        raise ExpressionError("gives no string; string() makes one of a number")
    name: str = value.string_value
    size = len(name.encode())
    if not 1 <= size <= MAX_NAME_BYTES:
        raise ExpressionError(f"gives a name of {size} bytes; 1-{MAX_NAME_BYTES} are allowed")
    return name
