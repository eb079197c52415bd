"""sagactl compensate, retry, skip, abandon and complete: steer a saga by hand."""
# ruff: noqa: A002 (`input` is an option's name)

from __future__ import annotations

import enum
from typing import Annotated, Any

from cyclopts import Parameter

from sagad.v1 import saga_pb2, saga_service_pb2
from sagad.v1.saga_pb2 import Saga
from sagad_client.client import Client
from sagad_client.commands.exits import OK, UsageError
from sagad_client.commands.filters import NO_FILTER, FilterOptions
from sagad_client.commands.inputs import NOT_NEGATIVE, read_json, read_payload, read_text
from sagad_client.commands.repair_many import NOT_MANY, ManyOptions, is_many, repair_many
from sagad_client.commands.session import Session, SessionParameter
from sagad_client.outcomes import failed, succeeded
from sagad_client.terminal.text import saga_state
from sagad_client.terminal.views import saga_views

OneOrManyArgument = Annotated[str, Parameter(help="The saga; or else --all.")]
SagaArgument = Annotated[str, Parameter(help="The saga.")]
StepArgument = Annotated[str, Parameter(help="Its step.")]
ReasonOption = Annotated[str, Parameter(help="Why, for those who read the saga's events; 1-500 characters.")]
RevisionOption = Annotated[
    int | None,
    Parameter(
        validator=NOT_NEGATIVE, help="The saga's revision that you have decided on; default: the one it has now."
    ),
]


class SkipOutcomeName(enum.Enum):
    """What became of a pivot whose outcome is unknown."""

    SUCCEEDED = saga_service_pb2.SKIP_OUTCOME_SUCCEEDED
    NOT_EXECUTED = saga_service_pb2.SKIP_OUTCOME_NOT_EXECUTED


async def compensate(
    saga_id: OneOrManyArgument = "",
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, for those who read the saga's events; at most 500 characters.")] = "",
    many: ManyOptions = NOT_MANY,
    filters: FilterOptions = NO_FILTER,
    session: SessionParameter,
) -> int:
    """Stop a saga and undo what may have happened; a succeeded saga is undone as a whole."""
    if is_many(saga_id, many, filters):
        return await repair_many(session, saga_service_pb2.REPAIR_ACTION_COMPENSATE, many, filters, reason)
    async with session.client() as client:
        _show(session, await client.compensate(saga_id, reason=reason))
    return OK


async def retry(
    saga_id: OneOrManyArgument = "",
    /,
    *,
    reason: ReasonOption,
    step: Annotated[str, Parameter(help="Only this parked step; default: all that is parked.")] = "",
    input: Annotated[
        str | None,
        Parameter(
            help="New input of the step as JSON, @FILE or -; only where it cannot have happened.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    revision: RevisionOption = None,
    many: ManyOptions = NOT_MANY,
    filters: FilterOptions = NO_FILTER,
    session: SessionParameter,
) -> int:
    """Give what is parked in a saga new attempts."""
    given = {"--step": step, "--input": input, "--revision": revision}
    if is_many(saga_id, many, filters, [name for name, value in given.items() if value not in (None, "")]):
        return await repair_many(session, saga_service_pb2.REPAIR_ACTION_RETRY, many, filters, reason)
    payload = read_payload(input, "--input")
    if payload is not None and not step:
        raise UsageError("--input replaces the input of one step: name it by --step")
    async with session.client() as client:
        seen = await _revision(client, saga_id, revision)
        saga = await client.retry(saga_id, revision=seen, reason=reason, step_id=step, input=payload)
    _show(session, saga)
    return OK


async def skip(
    saga_id: SagaArgument,
    step_id: StepArgument,
    /,
    *,
    reason: ReasonOption,
    outcome: Annotated[
        SkipOutcomeName | None, Parameter(help="What became of it; required for a pivot whose outcome is unknown.")
    ] = None,
    output: Annotated[
        str | None,
        Parameter(
            help="Output it counts as having given, as JSON, @FILE or -.",
            allow_leading_hyphen=True,
            name="--step-output",
        ),
    ] = None,
    revision: RevisionOption = None,
    session: SessionParameter,
) -> int:
    """Settle a parked step, or a parked compensation, by hand."""
    payload = read_payload(output, "--step-output")
    async with session.client() as client:
        saga = await client.skip_step(
            saga_id,
            step_id,
            revision=await _revision(client, saga_id, revision),
            reason=reason,
            outcome=outcome.value if outcome else saga_service_pb2.SKIP_OUTCOME_UNSPECIFIED,
            output=payload,
        )
    _show(session, saga)
    return OK


async def abandon(
    saga_id: OneOrManyArgument = "",
    /,
    *,
    reason: ReasonOption,
    revision: RevisionOption = None,
    many: ManyOptions = NOT_MANY,
    filters: FilterOptions = NO_FILTER,
    session: SessionParameter,
) -> int:
    """End a parked saga as it is, without calling anybody."""
    if is_many(saga_id, many, filters, [] if revision is None else ["--revision"]):
        return await repair_many(session, saga_service_pb2.REPAIR_ACTION_ABANDON, many, filters, reason)
    async with session.client() as client:
        seen = await _revision(client, saga_id, revision)
        _show(session, await client.abandon(saga_id, revision=seen, reason=reason))
    return OK


async def complete(
    saga_id: SagaArgument,
    step_id: StepArgument,
    /,
    *,
    token: Annotated[
        str,
        Parameter(
            help="The completion token that came with the call; @FILE or - keeps it secret.", allow_leading_hyphen=True
        ),
    ],
    success: Annotated[bool, Parameter(help="The step has succeeded.")] = False,
    failure: Annotated[str, Parameter(help="The step has failed, for this UPPER_SNAKE_CASE reason.")] = "",
    output: Annotated[
        str | None,
        Parameter(help="Output of a success as JSON, @FILE or -.", allow_leading_hyphen=True, name="--step-output"),
    ] = None,
    message: Annotated[str, Parameter(help="Message of a failure.")] = "",
    details: Annotated[
        str | None, Parameter(help="Details of a failure, a JSON object, @FILE or -.", allow_leading_hyphen=True)
    ] = None,
    retryable: Annotated[bool, Parameter(help="After a failure, the same call may succeed later.")] = False,
    session: SessionParameter,
) -> int:
    """Answer a step, or a compensation, whose participant said that it is pending."""
    if success == bool(failure):
        raise UsageError("give either --success or --failure REASON")
    if success and (message or details or retryable):
        raise UsageError("--message, --details and --retryable belong to --failure")
    if failure and output is not None:
        raise UsageError("--step-output belongs to --success")
    outcome = (
        succeeded(read_payload(output, "--step-output"))
        if success
        else failed(failure, message, details=_details(details), retryable=retryable)
    )
    async with session.client() as client:
        _show(session, await client.complete_step(saga_id, step_id, read_text(token, "--token").strip(), outcome))
    return OK


def _details(argument: str | None) -> dict[str, Any] | None:
    if argument is None:
        return None
    value = read_json(argument, "--details")
    if not isinstance(value, dict):
        raise UsageError('--details must be a JSON object, such as {"balance": 3}')
    return value


async def _revision(client: Client, saga_id: str, revision: int | None) -> int:
    if revision is not None:
        return revision
    return (await client.get(saga_id, view=saga_pb2.SAGA_VIEW_BASIC)).revision


def _show(session: Session, saga: Saga) -> None:
    output = session.output
    if output.is_terminal:
        output.line(f"{saga.saga_id} is {saga_state(saga.state)} at revision {saga.revision}")
    else:
        output.show(saga, *saga_views(saga)[:1])
