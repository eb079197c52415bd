"""What a person is told when a call did not succeed, and what to do next."""

from __future__ import annotations

from sagad_client.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SagadError,
    Unavailable,
    Violation,
)
from sagad_client.terminal.text import printable

_BY_REASON = {
    "ABANDONED": "an abandoned saga has ended for good; start another one",
    "DEFINITION_INACTIVE": "let its sagas start (sagactl definition activate), or name another --version",
    "DEFINITION_IN_USE": "purge its ended sagas first (sagactl purge --definition), or deactivate it",
    "DEFINITION_NOT_FOUND": "see what there is: sagactl definition list; is --namespace right?",
    "DRAINING": "this server is being stopped: repeat in a moment",
    "INPUT_FIXED": "retry without --input: the action may have happened with the input it had",
    "JOURNAL_CHANGED": "leave --resume out, and look at how sagas stand: sagactl list",
    "JOURNAL_PURGED": "leave --resume out, and look at how sagas stand: sagactl list",
    "MALFORMED_REQUEST": "sagactl and sagad differ too much in version: sagactl --version, sagactl info",
    "NOT_PARKED": "only what is parked can be repaired: sagactl get shows what is",
    "OUTCOME_CONFLICT": "the step was answered otherwise before: sagactl events",
    "PAST_PIVOT": "the saga is past its point of no return and can only go forward",
    "PIVOT_IN_FLIGHT": "the point of no return is under way: wait for it (sagactl watch), then look again",
    "PURGED": "only the saga's end is still known: sagactl get",
    "SAGA_EXISTS": "look at the saga that has this id (sagactl get), or choose another --id",
    "SAGA_NOT_FOUND": "see what there is: sagactl list; is --namespace right?",
    "SAGA_PARKED": "the saga is parked as a whole: sagactl retry first, then complete again",
    "STEP_CLOSED": "the step was given up before this answer came: sagactl events",
    "STORE_UNAVAILABLE": "its PostgreSQL is away: sagactl health says more; then repeat",
    "TOO_MANY_DEFINITIONS": "delete versions that no saga names: sagactl definition list",
    "TOO_MANY_STEPS": "delete versions that no saga names: sagactl definition list",
}

_BY_KIND: dict[type[SagadError], str] = {
    NotFound: "see what there is: sagactl list, or sagactl definition list; is --namespace right?",
    AlreadyExists: "choose another id or version, or look at what is there: sagactl get",
    FailedPrecondition: "look at the state it is in: sagactl get",
    Aborted: "it has changed meanwhile: look at it (sagactl get), then repeat with the new --revision",
    PermissionDenied: "check the completion token, or your rights",
    OutOfRange: "watch from the start: leave --after out",
    ResourceExhausted: "a limit is reached: try later, or ask for less",
    Unavailable: "is sagad running there? see --server, and SAGACTL_SERVER",
    DeadlineExceeded: "it may have happened all the same: look at it (sagactl get); --call-timeout allows more time",
    Internal: "this is a fault of the server: its log has more",
}


def refusal_lines(error: SagadError, server: str) -> list[str]:
    """The error in lines: what was wrong, every fault by its field, and the next move."""
    lines = [f"{error.reason or error.code.name}: {printable(_headline(error))}"]
    lines += [f"  {printable(_fault_text(fault))}" for fault in error.violations]
    if isinstance(error, Unavailable):
        lines[0] += f" (server {server})"
    if error.retry_after_s is not None:
        lines.append(f"  try again in {error.retry_after_s:.3g} s")
    hint = _BY_REASON.get(error.reason) or _BY_KIND.get(type(error))
    return [*lines, f"Next: {hint}"] if hint else lines


def _headline(error: SagadError) -> str:
    """The message, without the faults that follow it one by one."""
    if not error.violations:
        return error.message
    head, told, _ = error.message.partition(_fault_text(error.violations[0]))
    return head.rstrip(" :") if told else error.message


def _fault_text(fault: Violation) -> str:
    return f"{fault.field}: {fault.description}" if fault.field else fault.description
