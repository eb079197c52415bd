"""How the end of a call moves its step (design: "may it have happened?", pivot, retries, pending)."""

from dataclasses import replace

from sagad_server.domain.definition import StepDefinition
from sagad_server.domain.draft import Draft
from sagad_server.domain.inputs import Failed, NotSent, Outcome, Pending, Success
from sagad_server.domain.progress import give_up, turn_round
from sagad_server.domain.retry import backoff_ms
from sagad_server.domain.saga import Failure, Step
from sagad_server.domain.states import Direction, FailureCategory, ParkingReason, StepKind
from sagad_server.domain.transitions import Trigger

_MESSAGE_LIMIT = 1024


def apply_outcome(
    draft: Draft, index: int, direction: Direction, outcome: Outcome, elapsed_ms: int, random: float
) -> None:
    """Moves a step whose call has ended with `outcome`."""
    if isinstance(outcome, Failed):
        step_id = draft.saga.definition.steps[index].step_id
        outcome = replace(outcome, failure=replace(outcome.failure, step_id=step_id))
    if direction is Direction.ACTION:
        _action_ended(draft, index, outcome, elapsed_ms, random)
    else:
        _compensation_ended(draft, index, outcome, elapsed_ms, random)


def _action_ended(draft: Draft, index: int, outcome: Outcome, elapsed_ms: int, random: float) -> None:
    definition = draft.saga.definition.steps[index]
    backwards = draft.saga.compensating
    if isinstance(outcome, Success):
        draft.succeed(index, outcome.output)
    elif isinstance(outcome, Pending):
        if backwards:
            give_up(draft, index)
        else:
            draft.wait(index, Trigger.PEND, definition.completion_timeout_ms)
    elif isinstance(outcome, NotSent):
        if backwards:
            _close(draft, index)
        else:
            _not_sent(draft, index, Direction.ACTION, outcome, elapsed_ms, random)
    else:
        step = draft.change(index).step
        draft.fail(index, outcome.failure)
        if outcome.never_executed:
            step.may_have_happened = False
        elif outcome.ambiguous:
            step.may_have_happened = True
        if backwards:
            _close(draft, index)
        elif definition.kind is StepKind.RETRIABLE:
            _retry_until(draft, index, Direction.ACTION, outcome, elapsed_ms, random)
        else:
            _retry_or_turn_round(draft, index, outcome, random)


def _compensation_ended(draft: Draft, index: int, outcome: Outcome, elapsed_ms: int, random: float) -> None:
    definition = draft.saga.definition.steps[index]
    if isinstance(outcome, Success):
        draft.move(index, Trigger.UNDONE).failure = None
    elif isinstance(outcome, Pending):
        draft.wait(index, Trigger.PEND, definition.completion_timeout_ms)
    elif isinstance(outcome, NotSent):
        _not_sent(draft, index, Direction.COMPENSATION, outcome, elapsed_ms, random)
    else:
        draft.fail(index, outcome.failure)
        _retry_until(draft, index, Direction.COMPENSATION, outcome, elapsed_ms, random)


def _close(draft: Draft, index: int) -> None:
    """The saga goes back and gives the action no further attempt."""
    may = draft.saga.steps[index].may_have_happened
    draft.move(index, Trigger.GIVE_UP if may else Trigger.REFUSE)


def _not_sent(draft: Draft, index: int, direction: Direction, outcome: NotSent, elapsed_ms: int, random: float) -> None:
    """Tried again soon. What must succeed parks once retry_for is over."""
    definition = draft.saga.definition.steps[index]
    failure = Failure(FailureCategory.INFRASTRUCTURE, "NOT_SENT", outcome.message, definition.step_id)
    draft.fail(index, failure)
    bounded = direction is Direction.COMPENSATION or definition.kind is StepKind.RETRIABLE
    if bounded and elapsed_ms >= definition.retry_for_ms:
        _park(draft, index, direction, failure, exhausted=True)
        return
    if outcome.uses_retry and not bounded:
        _again_or_turn_round(draft, index, failure, outcome.retry_after_ms, random, retry=True)
        return
    draft.wait(index, Trigger.BACK_OFF, backoff_ms(definition, 2, random, outcome.retry_after_ms))
    draft.rearm_deadline = _deadline_counts_again(draft, index)


def _deadline_counts_again(draft: Draft, index: int) -> bool:
    """A deadline that passed while the pivot was in flight counts again once the pivot has certainly not happened."""
    is_pivot = draft.saga.definition.steps[index].kind is StepKind.PIVOT
    return is_pivot and not draft.saga.steps[index].may_have_happened


def wants_retry(definition: StepDefinition, outcome: Failed) -> bool:
    """Whether the failure is of those that are retried. A step may override that for gRPC codes."""
    if outcome.never_executed or outcome.code in definition.final_codes:
        return False
    return outcome.retryable or outcome.code in definition.retryable_codes


def _retry_or_turn_round(draft: Draft, index: int, outcome: Failed, random: float) -> None:
    """Compensatable steps and the pivot: bounded by max_retries."""
    retry = wants_retry(draft.saga.definition.steps[index], outcome)
    _again_or_turn_round(draft, index, outcome.failure, outcome.retry_after_ms, random, retry=retry)


def _again_or_turn_round(
    draft: Draft, index: int, failure: Failure, retry_after_ms: int, random: float, *, retry: bool
) -> None:
    definition = draft.saga.definition.steps[index]
    step = draft.saga.steps[index]
    if retry and step.retries < definition.max_retries:
        delay_ms = backoff_ms(definition, step.retries, random, retry_after_ms)
        step.retries += 1
        draft.wait(index, Trigger.BACK_OFF, delay_ms)
        draft.rearm_deadline = _deadline_counts_again(draft, index)
        return
    settle_failed_action(draft, index, _exhausted(step, failure) if retry and definition.max_retries else failure)


def settle_failed_action(draft: Draft, index: int, failure: Failure) -> None:
    """No further attempt of a compensatable step or the pivot: the saga turns round, or parks on an unknown pivot."""
    definition = draft.saga.definition.steps[index]
    draft.fail(index, failure)
    if definition.kind is StepKind.PIVOT and draft.saga.steps[index].may_have_happened:
        draft.park(index, ParkingReason.PIVOT_OUTCOME_UNKNOWN)
        return
    _close(draft, index)
    turn_round(draft, failure)


def _exhausted(step: Step, last: Failure) -> Failure:
    message = f"gave up after {step.attempt} attempts; the last: {last.reason}: {last.message}"
    return replace(last, category=FailureCategory.RETRIES_EXHAUSTED, message=message[:_MESSAGE_LIMIT])


def _retry_until(
    draft: Draft, index: int, direction: Direction, outcome: Failed, elapsed_ms: int, random: float
) -> None:
    """Retriable steps and compensations: bounded by retry_for, then parked."""
    definition = draft.saga.definition.steps[index]
    answered = outcome.is_answer and not wants_retry(definition, outcome)
    left_ms = definition.retry_for_ms - elapsed_ms
    if answered or left_ms <= 0:
        _park(draft, index, direction, outcome.failure, exhausted=not answered)
        return
    step = draft.saga.steps[index]
    failures = step.retries if direction is Direction.ACTION else step.compensation_retries
    # The last pause ends with retry_for, so that there is a last attempt.
    delay_ms = min(backoff_ms(definition, failures, random, outcome.retry_after_ms), left_ms)
    if direction is Direction.ACTION:
        step.retries += 1
    else:
        step.compensation_retries += 1
    draft.wait(index, Trigger.BACK_OFF, delay_ms)


def _park(draft: Draft, index: int, direction: Direction, failure: Failure, *, exhausted: bool) -> None:
    if direction is Direction.COMPENSATION:
        draft.fail(index, replace(failure, category=FailureCategory.COMPENSATION))
        reason = ParkingReason.COMPENSATION_EXHAUSTED if exhausted else ParkingReason.COMPENSATION_REFUSED
    else:
        if exhausted:
            draft.fail(index, _exhausted(draft.saga.steps[index], failure))
        reason = ParkingReason.STEP_EXHAUSTED if exhausted else ParkingReason.STEP_REFUSED
    draft.park(index, reason)


def completion_expired(draft: Draft, index: int, direction: Direction, elapsed_ms: int) -> None:
    """A pending answer did not come: the participant is polled with the same key, within the same bounds as retries,
    and at least once where retry_for is the bound."""
    definition = draft.saga.definition.steps[index]
    step = draft.change(index).step
    failure = Failure(
        FailureCategory.TIMEOUT,
        "COMPLETION_TIMEOUT",
        f"no CompleteStep within {definition.completion_timeout_ms} ms",
        definition.step_id,
    )
    if direction is Direction.COMPENSATION:
        if elapsed_ms >= definition.retry_for_ms and step.compensation_retries:
            _park(draft, index, direction, failure, exhausted=True)
        else:
            step.compensation_retries += 1
            draft.call_compensation(index)
        return
    step.may_have_happened = True  # it was accepted: no refusal of a poll takes that back
    if definition.kind is StepKind.RETRIABLE:
        if elapsed_ms >= definition.retry_for_ms and step.retries:
            _park(draft, index, direction, failure, exhausted=True)
        else:
            step.retries += 1
            draft.call_action(index)
    elif step.retries < definition.max_retries:
        step.retries += 1
        draft.call_action(index)
    else:
        settle_failed_action(draft, index, _exhausted(step, failure) if definition.max_retries else failure)
