"""The barrier: makes calls that come twice, late, or in the wrong order harmless.

A barrier has one row for each (idempotency_key, Kind). A call claims its row in the same transaction in which the
handler works, so either both are committed or neither.

| row of the action | a call of the action   | a call of the compensation                                         |
| ----------------- | ---------------------- | ------------------------------------------------------------------ |
| none              | the handler runs       | succeeds at once, and the action is REFUSED should it come later;  |
|                   |                        | but if the coordinator has the action's success, the handler runs  |
| SUCCEEDED         | the same answer again  | the handler runs                                                   |
| REFUSED           | the same refusal again | succeeds at once                                                   |
| PENDING           | pending again          | the handler runs; the row is CLOSED, so it cannot be completed     |
| CLOSED            | a failure              | the handler runs                                                   |

A compensation's own row, once SUCCEEDED or PENDING, answers every further call of it. One whose pending work ended in a
refusal runs anew, because that is what an operator's retry asks for.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol, runtime_checkable

from sagad.v1 import common_pb2
from sagad_participant.completions import Completion
from sagad_participant.rows import Claim, Entries, Entry, Kind, Work


@runtime_checkable
class BatchBarrier(Protocol):
    """What a barrier has beside, if it can serve many calls in one transaction. PostgresBarrier has it."""

    def claim_many(self, claims: Sequence[Claim]) -> AbstractAsyncContextManager[Entries]:
        """As Barrier.claim, for calls of one kind, each with a key of its own. Raises Unavailable."""


class Barrier(Protocol):
    """What a participant needs of its barrier. PostgresBarrier, MemoryBarrier and RedisBarrier have it."""

    def claim(self, claim: Claim) -> AbstractAsyncContextManager[Entry]:
        """Opens a transaction and claims the call's row; commits at the end of the block, rolls back on an exception.

        Waits, within bounds, for another call that has claimed the row. Raises Fenced and Unavailable.
        """

    async def refuse(self, claim: Claim, outcome: common_pb2.StepOutcome) -> common_pb2.StepOutcome:
        """Makes a refusal of an action final, in a transaction of its own; returns the answer that the row has now.

        That is another one if another call with the key got there first. Raises Fenced and Unavailable.
        """

    def completion(self, idempotency_key: str, kind: Kind = Kind.ACTION) -> AbstractAsyncContextManager[Completion]:
        """Opens the transaction in which pending work is done: its effect and the row's new answer, both or neither.

        Raises PendingClosed if the step was compensated meanwhile, AlreadyCompleted, UnknownWork, and Unavailable.
        """

    async def pending(self, limit: int = 100) -> list[Work]:
        """Open work, oldest first: what a worker has to do, also after a restart."""

    async def undelivered(self, limit: int = 100) -> list[Work]:
        """Completed work that the coordinator has not confirmed, oldest first. See `deliver`."""

    async def delivered(self, work: Work) -> None:
        """Notes that the coordinator knows the outcome of the work."""

    async def prune(self, older_than: timedelta, limit: int = 1000) -> int:
        """Forgets at most `limit` keys that nobody has called for `older_than`; returns how many rows that were.

        A forgotten key protects no more: let `older_than` exceed the longest time in which the coordinator may repeat a
        call or compensate (its retry_for, completion_timeout and saga deadlines together). Pending and undelivered work
        is kept. Call it now and then until it returns 0.
        """
