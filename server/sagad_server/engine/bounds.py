"""How much data one saga may hold."""

from dataclasses import replace

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.decide import decide
from sagad_server.domain.draft import Decision
from sagad_server.domain.errors import InvalidArgument, Violation
from sagad_server.domain.inputs import Answered, Complete, Input, Retry, Skip, Success
from sagad_server.domain.saga import Saga
from sagad_server.engine.requests import broken_answer


def decide_bounded(saga: Saga, what: Input, held_bytes: int, limit_bytes: int) -> Decision | None:
    """As `decide`, unless the saga, which holds `held_bytes`, would keep more than `limit_bytes`: then a participant
    has not answered, and a caller is refused. Raises InvalidArgument for that, and whatever `decide` raises."""
    decision = decide(saga, what)
    field, payload = _brought(what)
    if decision is None or payload is None or held_bytes + payload.ByteSize() <= limit_bytes:
        return decision
    if not any(payload is change.output or payload is change.input for change in decision.event.changes):
        return decision  # it is not kept
    if isinstance(what, Answered):
        why = f"with this output the saga would hold more than {limit_bytes} bytes"
        return decide(saga, replace(what, outcome=broken_answer(why)))
    description = f"is {payload.ByteSize()} bytes long; the saga holds {held_bytes} of at most {limit_bytes} bytes"
    raise InvalidArgument.of([Violation(field, description)])


def _brought(what: Input) -> tuple[str, Payload | None]:
    """The data that came with the input, and the field that it came in."""
    if isinstance(what, Skip):
        return "output", what.output
    if isinstance(what, Retry):
        return "input", what.input
    if isinstance(what, Answered | Complete) and isinstance(what.outcome, Success):
        return "outcome.success.output", what.outcome.output
    return "", None
