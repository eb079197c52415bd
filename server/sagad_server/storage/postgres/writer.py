"""The one connection that commits."""

import asyncio
from collections.abc import Sequence
from operator import attrgetter
from typing import TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from sagad_server.storage.postgres.arrays import advance_arrays, has_locks, lock_arrays, start_arrays
from sagad_server.storage.postgres.connect import AWAY, Connection, close, connect, describe
from sagad_server.storage.postgres.queries import load_queries
from sagad_server.storage.postgres.settings import PostgresSettings
from sagad_server.storage.rows import Key
from sagad_server.storage.store import CommitUnknown, DataRejected, LostRace, Retryable
from sagad_server.storage.writes import Batch, Committed

_PARTS = load_queries("commit")


def _start(free: str = "") -> str:
    return _PARTS["start"].format(free=f"{free}\n    " if free else "")


ADVANCE = f"WITH {_PARTS['advance']},\n{_PARTS['journal_advanced']}"
"""For batches without new sagas: half the parameters and half the plan."""
COMMIT = f"WITH {_PARTS['advance']},\n{_start()},\n{_PARTS['journal_all']}\n{_PARTS['answer_all']}"
COMMIT_WITH_LOCKS = (
    f"WITH {_PARTS['advance']},\n{_PARTS['wanted_locks']},\n{_start(_PARTS['free'])},\n{_PARTS['journal_all']},\n"
    f"{_PARTS['locks']}\n{_PARTS['answer_locks']}"
)

SESSION = {
    "application_name": "sagad writer",
    "enable_seqscan": "off",  # a young table would be scanned
    "plan_cache_mode": "force_generic_plan",  # planning takes longer than running
}

LOCK_HOLDER = "lock_holder"
"""The index that makes a lock a lock."""

Statement: TypeAlias = "PreparedStatement[asyncpg.Record]"
DATA_ERRORS = (
    asyncpg.DataError,  # 22
    asyncpg.IntegrityConstraintViolationError,  # 23
    asyncpg.ProgramLimitExceededError,  # 54: too large for an index
)
_key = attrgetter("key")


class Writer:
    """Commits batches, one after the other. A lost connection is made anew by the next commit."""

    def __init__(self, settings: PostgresSettings, owner: UUID) -> None:
        self._settings = settings
        self.owner = owner
        """Changes when the node has registered anew."""
        self._one_at_a_time = asyncio.Lock()
        self._connection: Connection | None = None
        self._statements: dict[str, Statement] = {}
        self._closed = False

    async def connect(self) -> None:
        """Connects now rather than at the first commit. Raises one of AWAY."""
        connection = await connect(self._settings, **SESSION)
        try:
            self._statements = {sql: await connection.prepare(sql) for sql in (ADVANCE, COMMIT, COMMIT_WITH_LOCKS)}
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def close(self) -> None:
        """Waits for the commit under way, and takes no further one."""
        self._closed = True
        async with self._one_at_a_time:
            if self._connection is not None:
                await close(self._connection)

    def terminate(self) -> None:
        """Ends at once; a commit under way is unknown."""
        self._closed = True
        if self._connection is not None:
            self._connection.terminate()

    async def commit(self, batch: Batch) -> Committed:
        """See `Store.commit`."""
        new = sorted((write for write in batch.writes if write.new), key=_key)
        old = sorted((write for write in batch.writes if not write.new), key=_key)
        keys = {write.key for write in batch.writes}
        assert len(keys) == len(batch.writes), "a batch holds at most one write of a saga"
        try:
            arguments = [batch.batch_id, self.owner, *advance_arrays(old)]
            locks = any(map(has_locks, batch.writes))
            if new or locks:
                arguments += start_arrays(new)
            if locks:
                arguments += lock_arrays(batch.writes, new, old)
        except UnicodeEncodeError as error:
            raise DataRejected(f"a key cannot be encoded in UTF-8: {error}") from error
        async with self._one_at_a_time:
            statement = await self._statement(COMMIT_WITH_LOCKS if locks else COMMIT if new else ADVANCE)
            record = await self._execute(statement, arguments)
        started, advanced = record["started"] or (), record["advanced"] or ()
        if len(started) + len(advanced) < len(keys):
            keys = {*(new[place - 1].key for place in started), *(old[place - 1].key for place in advanced)}
        if not locks:
            return Committed(keys, record["time"])
        held_up = {new[place - 1].key for place in record["held_up"] or ()}
        awaited = set(zip(record["awaited_namespaces"] or (), record["awaited_names"] or (), strict=True))
        return Committed(keys, record["time"], held_up, _lock_tokens(record), awaited)

    async def _statement(self, sql: str) -> Statement:
        """The prepared statement, on a connection that is alive as far as we know."""
        if self._closed:
            raise Retryable("the store is closed")
        if self._connection is None or self._connection.is_closed():
            try:
                await self.connect()
            except AWAY as error:
                raise Retryable(f"PostgreSQL: {describe(error)}") from error
        return self._statements[sql]

    async def _execute(self, statement: Statement, arguments: Sequence[object]) -> asyncpg.Record:
        """Never cancels the statement: a cancel would reach the server, and a commit that only waits for its standby
        would stay on this side alone. Whoever cannot wait closes the connection."""
        task = asyncio.ensure_future(statement.fetchrow(*arguments))
        try:
            done, _ = await asyncio.wait((task,), timeout=self._settings.writer_silence_s)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise CommitUnknown(f"PostgreSQL was silent for {self._settings.writer_silence_s} s")
        error = task.exception()
        if isinstance(error, Exception) and (verdict := self._verdict(error)):
            raise verdict from error
        record = task.result()  # raises what is a bug
        assert record is not None
        return record

    def _abandon(self, task: "asyncio.Future[asyncpg.Record | None]") -> None:
        assert self._connection is not None
        self._connection.terminate()
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else asks

    def _verdict(self, error: Exception) -> Exception | None:
        """What an error means for the batch; None: it is a bug."""
        verdict = _meaning(error)
        if verdict is CommitUnknown or isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            assert self._connection is not None
            self._connection.terminate()  # the next commit looks for the host that takes writes
        return verdict(f"PostgreSQL: {describe(error)}") if verdict else None


def _lock_tokens(record: asyncpg.Record) -> dict[Key, dict[str, int]]:
    tokens: dict[Key, dict[str, int]] = {}
    columns = (record[name] or () for name in ("namespaces", "saga_ids", "names", "tokens"))
    for namespace, saga_id, name, token in zip(*columns, strict=True):
        tokens.setdefault((namespace, saga_id), {})[name] = token
    return tokens


def _meaning(error: Exception) -> type[Exception] | None:
    if isinstance(error, asyncpg.PostgresError):
        if error.severity_en in ("FATAL", "PANIC") or isinstance(error, asyncpg.PostgresConnectionError):
            return CommitUnknown  # it may have come after the commit was written
        if isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name == LOCK_HOLDER:
            return LostRace
        if isinstance(error, DATA_ERRORS):
            return DataRejected
        return Retryable if isinstance(error, AWAY) else None
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return DataRejected  # the driver could not encode it, and has sent nothing
    return CommitUnknown if isinstance(error, AWAY) else None
