"""The rules of a saga: one pure function, one input, one event.

`decide` knows no clock, no chance and no I/O: elapsed times and random numbers come with the input, and what is to be
done comes back as data, to be acted on once the event is durable.
"""

from collections.abc import Callable
from typing import Any

from sagad_server.domain.answers import apply_outcome, completion_expired
from sagad_server.domain.completion import decide_completion
from sagad_server.domain.draft import Decision, Draft, Event
from sagad_server.domain.inputs import (
    Abandon,
    Answered,
    Begin,
    Compensate,
    Complete,
    DeadlinePassed,
    Failed,
    Input,
    LockGranted,
    NotSent,
    Recover,
    Retry,
    Skip,
    Success,
    WaitOver,
)
from sagad_server.domain.operator import abandon, compensate, retry, skip
from sagad_server.domain.progress import advance, give_up, turn_round
from sagad_server.domain.saga import Failure, Saga
from sagad_server.domain.states import Direction, EventCause, FailureCategory, SagaState, StepState


def decide(saga: Saga, what: Input) -> Decision | None:
    """The saga after `what`, the event that records it, and what may be done once that is durable.

    None: nothing changes. Raises `errors.FailedPrecondition`, `errors.Aborted`, `errors.InvalidArgument` or
    `errors.Unavailable` for what a caller may not ask for now; the saga given is never changed.
    """
    return _RULES[type(what)](saga, what)


def begin(saga: Saga, *, queues: bool = False) -> Decision:
    """The first transition: the first steps are dispatched in the write that makes the saga durable, unless it
    `queues` for its locks."""
    assert saga.revision == 0, saga.revision
    draft = Draft.of(saga)
    if queues and saga.locks:
        draft.wait_for_lock(saga.locks[0])
    advance(draft)
    return conclude(draft, EventCause.STARTED)


def conclude(draft: Draft, cause: EventCause, *, actor: str = "", reason: str = "") -> Decision:
    """What the draft has become."""
    saga = draft.saga
    changes = [draft.changes[index] for index in sorted(draft.changes)]
    event = Event(saga.revision, saga.state, cause, changes, actor, reason, draft.failure)
    if saga.locks:
        if saga.ended:
            saga.lock_tokens, saga.waits_for_lock = {}, ""
        event.granted_lock, event.waits_for_lock = draft.granted_lock, saga.waits_for_lock
    assert not (draft.calls and saga.waits_for_lock), "nobody is called before the locks are held"
    return Decision(saga, event, draft.calls, draft.waits, draft.rearm_deadline, draft.queue_for)


def _answered(saga: Saga, what: Answered) -> Decision | None:
    step = saga.steps[what.step]
    expected = StepState.RUNNING if what.direction is Direction.ACTION else StepState.COMPENSATING
    attempt = step.attempt if what.direction is Direction.ACTION else step.compensation_attempt
    current = step.state is expected and step.generation == what.generation and attempt == what.attempt
    if saga.ended or saga.incident is not None or not current:
        return _late(saga, what)
    draft = Draft.of(saga)
    if isinstance(what.outcome, NotSent):  # a call that never left is no attempt
        changed = draft.change(what.step).step
        if what.direction is Direction.ACTION:
            changed.attempt -= 1
        else:
            changed.compensation_attempt -= 1
    apply_outcome(draft, what.step, what.direction, what.outcome, what.elapsed_ms, what.random)
    advance(draft)
    return conclude(draft, EventCause.ANSWERED)


def _late(saga: Saga, what: Answered) -> Decision | None:
    """An answer to a call whose step was settled otherwise is recorded, and changes nothing. What adds no knowledge,
    or comes to a saga at rest, is left out."""
    outcome = what.outcome
    if saga.ended or saga.state is SagaState.PARKED or not isinstance(outcome, Success | Failed):
        return None
    if isinstance(outcome, Failed) and outcome.ambiguous:
        return None
    step = saga.steps[what.step]
    if isinstance(outcome, Success) and step.succeeded and what.direction is Direction.ACTION:
        return None
    draft = Draft.of(saga)
    step_id = saga.definition.steps[what.step].step_id
    said = "success" if isinstance(outcome, Success) else f"failure {outcome.failure.reason}"
    reason = f"{what.direction.name.lower()} of {step_id}, attempt {what.attempt}: {said}"
    return conclude(draft, EventCause.LATE_ANSWER, reason=reason[:500])


def _wait_over(saga: Saga, what: WaitOver) -> Decision | None:
    step = saga.steps[what.step]
    if saga.ended or saga.incident is not None or step.changed_revision != what.changed_revision:
        return None
    draft = Draft.of(saga)
    match step.state:
        case StepState.BACKING_OFF:
            draft.call_action(what.step)
        case StepState.COMPENSATION_BACKING_OFF:
            draft.call_compensation(what.step)
        case StepState.AWAITING_COMPLETION:
            completion_expired(draft, what.step, Direction.ACTION, what.elapsed_ms)
        case StepState.COMPENSATION_AWAITING_COMPLETION:
            completion_expired(draft, what.step, Direction.COMPENSATION, what.elapsed_ms)
        case _:
            return None
    advance(draft)
    return conclude(draft, EventCause.TIMER)


def _deadline_passed(saga: Saga, what: DeadlinePassed) -> Decision | None:
    if not saga.deadline_counts():
        return None
    draft = Draft.of(saga)
    message = f"the saga had not ended {saga.timeout_ms} ms after its create_time"
    if saga.waits_for_lock:
        message += f": it was waiting for lock {saga.waits_for_lock!r}"
    turn_round(draft, Failure(FailureCategory.TIMEOUT, "DEADLINE_EXCEEDED", message))
    advance(draft)
    return conclude(draft, EventCause.DEADLINE)


def _complete(saga: Saga, what: Complete) -> Decision | None:
    if not decide_completion(saga, what):
        return None
    draft = Draft.of(saga)
    apply_outcome(draft, what.step, what.direction, what.outcome, what.elapsed_ms, what.random)
    advance(draft)
    return conclude(draft, EventCause.COMPLETED, actor=what.actor)


def _compensate(saga: Saga, what: Compensate) -> Decision | None:
    draft = Draft.of(saga)
    if not compensate(draft, what):
        return None
    advance(draft)
    return conclude(draft, EventCause.COMPENSATE_CALLED, actor=what.actor, reason=what.reason)


def _retry(saga: Saga, what: Retry) -> Decision:
    draft = Draft.of(saga)
    retry(draft, what)
    if saga.incident is not None:
        call_again(draft)
    advance(draft)
    return conclude(draft, EventCause.RETRY_CALLED, actor=what.actor, reason=what.reason)


def _skip(saga: Saga, what: Skip) -> Decision:
    draft = Draft.of(saga)
    skip(draft, what)
    advance(draft)
    return conclude(draft, EventCause.SKIP_CALLED, actor=what.actor, reason=what.reason)


def _abandon(saga: Saga, what: Abandon) -> Decision:
    draft = Draft.of(saga)
    abandon(draft, what)
    return conclude(draft, EventCause.ABANDON_CALLED, actor=what.actor, reason=what.reason)


def _recover(saga: Saga, what: Recover) -> Decision | None:
    if saga.ended or saga.state is SagaState.PARKED:
        return None
    draft = Draft.of(saga)
    call_again(draft)
    if not draft.changes:
        return None
    advance(draft)
    return conclude(draft, EventCause.RECOVERED)


def call_again(draft: Draft) -> None:
    """What was in flight may have happened. It is called again at once, with the same key, and that uses no retry."""
    for index, step in enumerate(draft.saga.steps):
        if step.state is StepState.RUNNING:
            if draft.saga.compensating:
                give_up(draft, index)
            else:
                draft.change(index).step.may_have_happened = True
                draft.call_action(index)
        elif step.state is StepState.COMPENSATING:
            draft.call_compensation(index)


def _begin(saga: Saga, what: Begin) -> Decision:
    return begin(saga, queues=what.queues)


def _lock_granted(saga: Saga, what: LockGranted) -> Decision | None:
    if saga.at_rest or saga.waits_for_lock != what.name:
        return None
    draft = Draft.of(saga)
    draft.granted_lock = what.name
    draft.saga.waits_for_lock = ""
    draft.saga.lock_tokens = {**saga.lock_tokens, what.name: what.fencing_token}
    behind = saga.locks[saga.locks.index(what.name) + 1 :]
    if behind:
        draft.wait_for_lock(behind[0])
    advance(draft)
    return conclude(draft, EventCause.LOCK_GRANTED)


_RULES: dict[type[Input], Callable[[Saga, Any], Decision | None]] = {
    Begin: _begin,
    LockGranted: _lock_granted,
    Answered: _answered,
    WaitOver: _wait_over,
    DeadlinePassed: _deadline_passed,
    Complete: _complete,
    Compensate: _compensate,
    Retry: _retry,
    Skip: _skip,
    Abandon: _abandon,
    Recover: _recover,
}
