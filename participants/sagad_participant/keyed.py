"""A barrier that locks the rows of one key as a whole: what MemoryBarrier and RedisBarrier share."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sagad.v1 import common_pb2
from sagad_participant.completions import Completion
from sagad_participant.errors import UnknownWork
from sagad_participant.outcomes import ALREADY_COMPENSATED, success_of
from sagad_participant.rows import (
    Claim,
    Entry,
    Kind,
    Status,
    Work,
    check_fence,
    check_open,
    replay_of,
    status_of,
    success_in,
)


def now() -> datetime:
    """By this machine's clock: for the order of work, and for its age."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one of the two calls of a key."""

    claim: Claim
    status: Status
    answer: bytes | None
    fencing_token: int
    completion_token: str | None = None
    """Set while the work is pending, or completed and the coordinator not told."""
    created: datetime = field(default_factory=now)
    touched: datetime = field(default_factory=now)

    def settled(self, outcome: common_pb2.StepOutcome, completion_token: str | None) -> "Row":
        """The same row with its answer."""
        answer = outcome.SerializeToString()
        return replace(self, status=status_of(outcome), answer=answer, completion_token=completion_token, touched=now())

    def work(self) -> Work:
        """The row as work for a worker."""
        return Work(
            idempotency_key=self.claim.idempotency_key,
            kind=self.claim.kind,
            namespace=self.claim.namespace,
            saga_id=self.claim.saga_id,
            step_id=self.claim.step_id,
            completion_token=self.completion_token or "",
            since=self.created,
            outcome=None if self.status is Status.PENDING else common_pb2.StepOutcome.FromString(self.answer or b""),
        )


Rows = dict[Kind, Row]


class KeyedBarrier(ABC):
    """The rules of the barrier over `_transaction`, which is all that differs."""

    @abstractmethod
    def _transaction(
        self, key: str, claim: Claim | None = None, *, runs: bool = False
    ) -> AbstractAsyncContextManager[tuple[Any, Rows]]:
        """Waits, within bounds, for the lock of the key; keeps the rows at the end of the block, not on an exception.

        Gives what handlers work with, and the rows to read and change. `runs`: the handler of the claim may run. An
        action's row is RUNNING where an earlier call of it has ended without an answer and may have had its effect.
        """

    @asynccontextmanager
    async def claim(self, claim: Claim) -> AsyncIterator[Entry]:
        """See Barrier."""
        async with self._transaction(claim.idempotency_key, claim, runs=True) as (connection, rows):
            if claim.kind is Kind.ACTION:
                row = _claim_action(rows, claim, Status.RUNNING, None)
                action_success = None
            else:
                row, action_success = _claim_compensation(rows, claim)

            async def settle(outcome: common_pb2.StepOutcome) -> None:
                rows[claim.kind] = row.settled(outcome, claim.completion_token if outcome.HasField("pending") else None)

            yield Entry(connection, settle, replay_of(row.status, row.answer), action_success)

    async def refuse(self, claim: Claim, outcome: common_pb2.StepOutcome) -> common_pb2.StepOutcome:
        """See Barrier."""
        async with self._transaction(claim.idempotency_key, claim) as (_, rows):
            row = _claim_action(rows, claim, Status.REFUSED, outcome.SerializeToString())
            if row.status is Status.RUNNING:
                return _perhaps_executed(outcome)
            return replay_of(row.status, row.answer) or outcome

    @asynccontextmanager
    async def completion(self, idempotency_key: str, kind: Kind = Kind.ACTION) -> AsyncIterator[Completion]:
        """See Barrier."""
        async with self._transaction(idempotency_key) as (connection, rows):
            if kind not in rows:
                raise UnknownWork(idempotency_key)
            check_open(idempotency_key, rows[kind].status)
            completion = Completion(connection, rows[kind].work())
            yield completion
            rows[kind] = rows[kind].settled(completion.outcome, rows[kind].completion_token)
        completion.committed = True

    async def delivered(self, work: Work) -> None:
        """See Barrier."""
        async with self._transaction(work.idempotency_key) as (_, rows):
            row = rows.get(work.kind)
            if row and row.status is not Status.PENDING:
                rows[work.kind] = replace(row, completion_token=None)


def _claim_action(rows: Rows, claim: Claim, status: Status, answer: bytes | None) -> Row:
    row = rows.get(Kind.ACTION) or Row(replace(claim, kind=Kind.ACTION), status, answer, claim.fencing_token)
    check_fence(claim, row.fencing_token)
    rows[Kind.ACTION] = replace(row, fencing_token=claim.fencing_token, touched=now())
    return rows[Kind.ACTION]


def _claim_compensation(rows: Rows, claim: Claim) -> tuple[Row, common_pb2.StepSuccess | None]:
    unseen = claim.known_success or ALREADY_COMPENSATED
    action = _claim_action(rows, claim, status_of(unseen), unseen.SerializeToString())
    if action.status in (Status.PENDING, Status.RUNNING):
        rows[Kind.ACTION] = replace(action, status=Status.CLOSED, completion_token=None)
    row = rows.get(Kind.COMPENSATION)
    if row is None and action.status is Status.REFUSED:
        row = Row(claim, Status.SUCCEEDED, success_of().SerializeToString(), claim.fencing_token)
    elif row is None or row.status is Status.REFUSED:
        row = Row(claim, Status.RUNNING, None, claim.fencing_token)
    rows[Kind.COMPENSATION] = replace(row, touched=now())
    return row, success_in(action.status, action.answer)


def _perhaps_executed(refusal: common_pb2.StepOutcome) -> common_pb2.StepOutcome:
    """A refusal after a call whose end nobody knows: it speaks for itself only, and is not remembered."""
    outcome = common_pb2.StepOutcome()
    outcome.CopyFrom(refusal)
    outcome.failure.never_executed = False
    return outcome
