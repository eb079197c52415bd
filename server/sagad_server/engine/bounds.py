"""How much data one saga may hold."""

from dataclasses import replace

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.errors import InvalidArgument, Violation
from sagad_server.domain.inputs import Answered, Complete, Input, Retry, Skip, Success
from sagad_server.domain.states import Direction
from sagad_server.engine.requests import broken_answer


def bounded(what: Input, held_bytes: int, limit_bytes: int) -> Input:
    """The input, if the saga may keep what it brings. Otherwise a participant has answered nothing, and a caller is
    refused: raises InvalidArgument."""
    field, payload = _brought(what)
    if payload is None or held_bytes + payload.ByteSize() <= limit_bytes:
        return what
    if isinstance(what, Answered):
        return replace(
            what, outcome=broken_answer(f"with this output the saga would hold more than {limit_bytes} bytes")
        )
    description = f"is {payload.ByteSize()} bytes long; the saga holds {held_bytes} of at most {limit_bytes} bytes"
    raise InvalidArgument.of([Violation(field, description)])


def _brought(what: Input) -> tuple[str, Payload | None]:
    """What the saga is to keep, and the field that it came in. The output of a compensation is not kept."""
    if isinstance(what, Skip):
        return "output", what.output
    if isinstance(what, Retry):
        return "input", what.input
    if not isinstance(what, Answered | Complete) or what.direction is Direction.COMPENSATION:
        return "", None
    return "outcome.success.output", what.outcome.output if isinstance(what.outcome, Success) else None
