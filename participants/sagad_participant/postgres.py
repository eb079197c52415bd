"""The barrier as a table in the participant's own PostgreSQL. Needs asyncpg: `pip install sagad[participant]`.

A call costs four round trips and those of its handler: BEGIN, the claim, the answer, COMMIT. asyncpg's pool adds one
when a connection is given back, to reset the session; `asyncpg.create_pool(dsn, reset=keep_session)` leaves it out.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from sagad.v1 import common_pb2
from sagad_participant.completions import Completion
from sagad_participant.errors import Fenced, Unavailable, UnknownWork
from sagad_participant.outcomes import ALREADY_COMPENSATED, success_of
from sagad_participant.rows import (
    Claim,
    Entries,
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

if TYPE_CHECKING:
    Record: TypeAlias = asyncpg.Record
    Pool: TypeAlias = asyncpg.Pool[Record]
    Connection: TypeAlias = PoolConnectionProxy[Record]

_HERE = Path(__file__).parent
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}\Z")
_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, cancelled
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,  # serialization, deadlock
    asyncpg.LockNotAvailableError,
)
_GONE = "the barrier's row is gone: the handler must not end the transaction that it works in"
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]


async def keep_session(connection: "asyncpg.Connection[Record]") -> None:
    """For `asyncpg.create_pool(reset=...)`: gives connections back without a round trip.

    Open transactions are still rolled back. Right for handlers that use SET LOCAL rather than SET, and leave no LISTEN,
    cursor or session-wide advisory lock behind.
    """


class PostgresBarrier:
    """A barrier in the table `schema`.`table` of the database of the pool; made by `create`, or by your migrations.

    schema: None takes the first schema of the search path. wait_s: how long a call waits for a connection, and how long
    for another call with the same key, before it ends UNAVAILABLE. isolation: of the handlers' transactions;
    serialization failures end UNAVAILABLE too, and are retried. Raises ValueError for names that are no plain
    identifiers.
    """

    def __init__(
        self,
        pool: "Pool",
        *,
        schema: str | None = None,
        table: str = "sagad_barrier",
        wait_s: float = 5.0,
        isolation: Isolation = "read_committed",
    ) -> None:
        for name in (table,) if schema is None else (schema, table):
            if not _IDENTIFIER.match(name):
                raise ValueError(
                    f"{name!r} is no name for a schema or table: 1-50 of a-z, A-Z, 0-9, '_', no digit first"
                )
        self._pool = pool
        self._table_name = table
        self._table = f'"{table}"' if schema is None else f'"{schema}"."{table}"'
        self._wait_s = wait_s
        self._isolation = isolation
        self._sql = {name: sql.replace("{table}", self._table) for name, sql in _queries().items()}

    def schema_sql(self) -> str:
        """The statements that make the table, for your own migrations. Safe to run again."""
        text = (_HERE / "schema.sql").read_text()
        return text.replace("{table}", self._table).replace("{name}", self._table_name)

    async def create(self) -> None:
        """Makes the table if it is missing. Several processes may do so at once. Its schema must exist."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", self._table)
            await connection.execute(self.schema_sql())

    @asynccontextmanager
    async def claim(self, claim: Claim) -> AsyncIterator[Entry]:
        """See Barrier."""
        async with self._transaction() as connection:
            if claim.kind is Kind.ACTION:
                yield await self._claim_action(connection, claim)
            else:
                yield await self._claim_compensation(connection, claim)

    @asynccontextmanager
    async def claim_many(self, claims: Sequence[Claim]) -> AsyncIterator[Entries]:
        """See BatchBarrier. One statement claims, and one settles, however many calls there are."""
        kind = claims[0].kind
        places = {claim.idempotency_key: place for place, claim in enumerate(claims)}
        assert len(places) == len(claims), "each call of a batch has a key of its own"
        async with self._transaction() as connection:
            rows = await self._claim_many(connection, kind, claims)
            replays: dict[int, common_pb2.StepOutcome | Fenced] = {}
            successes: dict[int, common_pb2.StepSuccess] = {}
            for row in rows:
                place = places[row["idempotency_key"]]
                try:
                    check_fence(claims[place], row["fencing_token"])
                except Fenced as fenced:
                    replays[place] = fenced
                    continue
                if (replay := replay_of(row["status"], row["answer"])) is not None:
                    replays[place] = replay
                elif kind is Kind.COMPENSATION:
                    success = success_in(row["action_status"], row["action_answer"])
                    if success is not None:
                        successes[place] = success

            async def settle(outcomes: Mapping[int, common_pb2.StepOutcome]) -> None:
                await self._settle_many(connection, kind, [(claims[place], one) for place, one in outcomes.items()])

            yield Entries(connection, settle, replays, successes)

    async def refuse(self, claim: Claim, outcome: common_pb2.StepOutcome) -> common_pb2.StepOutcome:
        """See Barrier."""
        async with self._connection() as connection:
            answer = outcome.SerializeToString()
            row = await self._row(connection, "claim_action", *_key(claim), Status.REFUSED, answer)
        check_fence(claim, row["fencing_token"])
        return replay_of(row["status"], row["answer"]) or outcome

    @asynccontextmanager
    async def completion(self, idempotency_key: str, kind: Kind = Kind.ACTION) -> AsyncIterator[Completion]:
        """See Barrier."""
        async with self._transaction() as connection:
            row = await self._fetch(connection, "lock", idempotency_key, kind)
            if row is None:
                raise UnknownWork(idempotency_key)
            check_open(idempotency_key, row["status"])
            completion = Completion(connection, _work(row))
            yield completion
            await self._settle(connection, completion.work, completion.outcome, completion.work.completion_token)
        completion.committed = True

    async def pending(self, limit: int = 100) -> list[Work]:
        """See Barrier."""
        return [_work(row) for row in await self._pool.fetch(self._sql["pending"], limit)]

    async def undelivered(self, limit: int = 100) -> list[Work]:
        """See Barrier."""
        return [_work(row) for row in await self._pool.fetch(self._sql["undelivered"], limit)]

    async def delivered(self, work: Work) -> None:
        """See Barrier."""
        await self._pool.execute(self._sql["delivered"], work.idempotency_key, work.kind)

    async def prune(self, older_than: timedelta, limit: int = 1000) -> int:
        """See Barrier."""
        status = await self._pool.execute(self._sql["prune"], older_than, limit)
        return int(status.removeprefix("DELETE "))

    async def _claim_action(self, connection: "Connection", claim: Claim) -> Entry:
        row = await self._row(connection, "claim_action", *_key(claim), Status.RUNNING, None)
        check_fence(claim, row["fencing_token"])
        return self._entry(connection, claim, row)

    async def _claim_compensation(self, connection: "Connection", claim: Claim) -> Entry:
        unseen = claim.known_success or ALREADY_COMPENSATED
        action = (status_of(unseen), unseen.SerializeToString())
        row = await self._row(connection, "claim_compensation", *_key(claim), *action, success_of().SerializeToString())
        check_fence(claim, row["fencing_token"])
        return self._entry(connection, claim, row, success_in(row["action_status"], row["action_answer"]))

    async def _claim_many(self, connection: "Connection", kind: Kind, claims: Sequence[Claim]) -> "list[Record]":
        columns: list[object] = [list(column) for column in zip(*map(_key, claims), strict=True)]
        if kind is Kind.COMPENSATION:
            unseen = [claim.known_success or ALREADY_COMPENSATED for claim in claims]
            columns += [[status_of(one) for one in unseen], [one.SerializeToString() for one in unseen]]
            columns.append(success_of().SerializeToString())
        query = "claim_actions" if kind is Kind.ACTION else "claim_compensations"
        try:
            rows = await connection.fetch(self._sql[query], *columns, timeout=self._wait_s)
        except TimeoutError:
            raise Unavailable(f"the barrier did not answer within {self._wait_s:g} s") from None
        if len(rows) != len(claims):
            raise RuntimeError(
                f"{query} returned {len(rows)} of {len(claims)} rows: is there a trigger on {self._table}?"
            )
        return rows

    async def _settle_many(
        self, connection: "Connection", kind: Kind, settled: Sequence[tuple[Claim, common_pb2.StepOutcome]]
    ) -> None:
        done = await connection.execute(
            self._sql["settle_many"],
            kind,
            [claim.idempotency_key for claim, _ in settled],
            [status_of(outcome) for _, outcome in settled],
            [outcome.SerializeToString() for _, outcome in settled],
            [claim.completion_token if outcome.HasField("pending") else None for claim, outcome in settled],
        )
        if done != f"UPDATE {len(settled)}":
            raise RuntimeError(_GONE)

    def _entry(
        self,
        connection: "Connection",
        claim: Claim,
        row: "Record",
        action_success: common_pb2.StepSuccess | None = None,
    ) -> Entry:
        async def settle(outcome: common_pb2.StepOutcome) -> None:
            token = claim.completion_token if outcome.HasField("pending") else None
            await self._settle(connection, claim, outcome, token)

        return Entry(connection, settle, replay_of(row["status"], row["answer"]), action_success)

    async def _settle(
        self, connection: "Connection", key: Claim | Work, outcome: common_pb2.StepOutcome, token: str | None
    ) -> None:
        answer = outcome.SerializeToString()
        settled = (key.idempotency_key, key.kind, status_of(outcome), answer, token)
        if await connection.execute(self._sql["settle"], *settled) != "UPDATE 1":
            raise RuntimeError(_GONE)

    async def _row(self, connection: "Connection", query: str, *arguments: object) -> "Record":
        row = await self._fetch(connection, query, *arguments)
        if row is None:
            raise RuntimeError(f"{query} returned no row: a trigger or rule on {self._table} swallows inserts")
        return row

    async def _fetch(self, connection: "Connection", query: str, *arguments: object) -> "Record | None":
        try:
            return await connection.fetchrow(self._sql[query], *arguments, timeout=self._wait_s)
        except TimeoutError:
            raise Unavailable(
                f"the barrier did not answer within {self._wait_s:g} s: another call with this key is still running, "
                "or the database is slow"
            ) from None

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator["Connection"]:
        async with self._connection() as connection, connection.transaction(isolation=self._isolation):
            yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["Connection"]:
        try:
            connection = await self._pool.acquire(timeout=self._wait_s)
        except (TimeoutError, OSError, *_TRANSIENT) as error:
            raise Unavailable(f"no database connection within {self._wait_s:g} s ({type(error).__name__})") from error
        try:
            yield connection
        except _TRANSIENT as error:
            raise Unavailable(f"the database could not finish the transaction ({type(error).__name__})") from error
        except asyncpg.InterfaceError as error:
            if not _is_lost(connection):
                raise
            raise Unavailable("the database connection was lost in the transaction") from error
        finally:
            await self._pool.release(connection)


def _is_lost(connection: "Connection") -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken it back already
        return True


def _queries() -> dict[str, str]:
    """The statements of barrier.sql by name, without their comments."""
    lines = (_HERE / "barrier.sql").read_text().splitlines()
    queries: dict[str, str] = {}
    for line in lines:
        if line.startswith("-- name: "):
            name = line.removeprefix("-- name: ")
            queries[name] = ""
        elif queries and line and not line.startswith("--"):
            queries[name] += line + "\n"
    return queries


def _key(claim: Claim) -> tuple[Any, ...]:
    return claim.idempotency_key, claim.fencing_token, claim.namespace, claim.saga_id, claim.step_id


def _work(row: "Record") -> Work:
    completed = row["status"] in (Status.SUCCEEDED, Status.REFUSED)
    return Work(
        idempotency_key=row["idempotency_key"],
        kind=Kind(row["kind"]),
        namespace=row["namespace"],
        saga_id=row["saga_id"],
        step_id=row["step_id"],
        completion_token=row["completion_token"],
        since=row["created_at"],
        outcome=common_pb2.StepOutcome.FromString(row["answer"]) if completed else None,
    )
