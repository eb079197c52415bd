"""A barrier in memory, for tests of participants. Behaves like PostgresBarrier, and is gone with the process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sagad.v1 import common_pb2
from sagad_participant.completions import Completion
from sagad_participant.errors import Unavailable, UnknownWork
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


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Row:
    claim: Claim
    status: Status
    answer: bytes | None
    fencing_token: int
    completion_token: str | None = None
    """Set while the work is pending, or completed and the coordinator not told."""
    created: datetime = field(default_factory=_now)
    touched: datetime = field(default_factory=_now)

    def settled(self, outcome: common_pb2.StepOutcome, completion_token: str | None) -> "_Row":
        answer = outcome.SerializeToString()
        return replace(
            self, status=status_of(outcome), answer=answer, completion_token=completion_token, touched=_now()
        )


_Rows = dict[Kind, _Row]


class MemoryConnection:
    """What handlers get as `call.connection`. Nothing of it happens if the transaction is rolled back."""

    def __init__(self) -> None:
        self._effects: list[Callable[[], None]] = []

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Calls `effect` when the transaction is committed."""
        self._effects.append(effect)

    def commit(self) -> None:
        """For the barrier."""
        for effect in self._effects:
            effect()


class MemoryBarrier:
    """A barrier for one process and its life. wait_s: how long a call waits for another one with the same key."""

    def __init__(self, *, wait_s: float = 5.0) -> None:
        self._wait_s = wait_s
        self._keys: dict[str, _Rows] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def claim(self, claim: Claim) -> AsyncIterator[Entry]:
        """See Barrier."""
        async with self._transaction(claim.idempotency_key) as (connection, rows):
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
        async with self._transaction(claim.idempotency_key) as (_, rows):
            row = _claim_action(rows, claim, Status.REFUSED, outcome.SerializeToString())
            return replay_of(row.status, row.answer) or outcome

    @asynccontextmanager
    async def completion(self, idempotency_key: str, kind: Kind = Kind.ACTION) -> AsyncIterator[Completion]:
        """See Barrier."""
        async with self._transaction(idempotency_key) as (connection, rows):
            if kind not in rows:
                raise UnknownWork(idempotency_key)
            check_open(idempotency_key, rows[kind].status)
            completion = Completion(connection, _work(rows[kind]))
            yield completion
            rows[kind] = rows[kind].settled(completion.outcome, rows[kind].completion_token)
        completion.committed = True

    async def pending(self, limit: int = 100) -> list[Work]:
        """See Barrier."""
        return [work for work in self._works() if work.outcome is None][:limit]

    async def undelivered(self, limit: int = 100) -> list[Work]:
        """See Barrier."""
        return [work for work in self._works() if work.outcome is not None][:limit]

    async def delivered(self, work: Work) -> None:
        """See Barrier."""
        async with self._transaction(work.idempotency_key) as (_, rows):
            row = rows.get(work.kind)
            if row and row.status is not Status.PENDING:
                rows[work.kind] = replace(row, completion_token=None)

    async def prune(self, older_than: timedelta, limit: int = 1000) -> int:
        """See Barrier."""
        oldest = _now() - older_than
        old = [
            key
            for key, rows in self._keys.items()
            if all(row.touched < oldest and row.completion_token is None for row in rows.values())
        ]
        return sum(len(self._keys.pop(key)) for key in old[:limit])

    def _works(self) -> list[Work]:
        rows = [row for rows in self._keys.values() for row in rows.values() if row.completion_token is not None]
        return [_work(row) for row in sorted(rows, key=lambda row: row.created)]

    @asynccontextmanager
    async def _transaction(self, key: str) -> AsyncIterator[tuple[MemoryConnection, _Rows]]:
        lock = self._locks[key]
        try:
            async with asyncio.timeout(self._wait_s):
                await lock.acquire()
        except TimeoutError:
            raise Unavailable(f"another call with this key has been running for {self._wait_s:g} s") from None
        try:
            connection, rows = MemoryConnection(), dict(self._keys.get(key, {}))
            yield connection, rows
            self._keys[key] = rows
            connection.commit()
        finally:
            lock.release()


def _claim_action(rows: _Rows, claim: Claim, status: Status, answer: bytes | None) -> _Row:
    row = rows.get(Kind.ACTION) or _Row(replace(claim, kind=Kind.ACTION), status, answer, claim.fencing_token)
    check_fence(claim, row.fencing_token)
    rows[Kind.ACTION] = replace(row, fencing_token=claim.fencing_token, touched=_now())
    return rows[Kind.ACTION]


def _claim_compensation(rows: _Rows, claim: Claim) -> tuple[_Row, common_pb2.StepSuccess | None]:
    unseen = claim.known_success or ALREADY_COMPENSATED
    action = _claim_action(rows, claim, status_of(unseen), unseen.SerializeToString())
    if action.status is Status.PENDING:
        rows[Kind.ACTION] = replace(action, status=Status.CLOSED, completion_token=None)
    row = rows.get(Kind.COMPENSATION)
    if row is None and action.status is Status.REFUSED:
        row = _Row(claim, Status.SUCCEEDED, success_of().SerializeToString(), claim.fencing_token)
    elif row is None or row.status is Status.REFUSED:
        row = _Row(claim, Status.RUNNING, None, claim.fencing_token)
    rows[Kind.COMPENSATION] = replace(row, touched=_now())
    return row, success_in(action.status, action.answer)


def _work(row: _Row) -> Work:
    return Work(
        idempotency_key=row.claim.idempotency_key,
        kind=row.claim.kind,
        namespace=row.claim.namespace,
        saga_id=row.claim.saga_id,
        step_id=row.claim.step_id,
        completion_token=row.completion_token or "",
        since=row.created,
        outcome=None if row.status is Status.PENDING else common_pb2.StepOutcome.FromString(row.answer or b""),
    )
