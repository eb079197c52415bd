"""The barrier in Redis (or Valkey), for a participant without a database. Needs redis: `pip install sagad[redis]`.

A call costs two round trips, and one for each third of the lease that it lasts. What it can promise is less than what
PostgresBarrier does, for an effect elsewhere and its record are not one transaction:

- **One execution for a key, while nothing fails.** A call that comes again gets the stored answer; one that comes while
  the first runs waits for `wait_s`, and then ends UNAVAILABLE, with the time until the first one's lease ends as
  RetryInfo.
- **A crash between effect and record makes the handler run again**, once the lease has ended, with the same
  idempotency key: hand that key on to whatever the handler calls. The same goes for a handler that raises (anything but
  Refused), outlives its deadline, or loses its lease because Redis is away for longer than that.
- **An action whose end is not known counts as one that may have happened.** Its compensation runs, with
  `output` UNKNOWN, and the action is refused should it come again. A refusal that follows such a call is not final, and
  does not say `never_executed`.
- **What is queued on `call.connection` does happen exactly once**: Redis commands run in the same step as the record.
- **Redis may lose data**: with `appendfsync everysec` the last second in a crash, with replicas what had not reached
  the one that takes over. What is lost protects no more: an action may run twice, one that was compensated may run
  late. Run it with `appendonly yes`, `appendfsync always` where that matters, and `maxmemory-policy noeviction`.
- **Keys expire** after `keep` without a call; work that is pending or undelivered never does.
"""

import asyncio
import base64
import json
import logging
import random
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sagad_participant.errors import Fenced, Unavailable
from sagad_participant.keyed import KeyedBarrier, Row, Rows
from sagad_participant.outcomes import Refused
from sagad_participant.rows import Claim, Kind, Status, Work

logger = logging.getLogger(__name__)

Word: TypeAlias = str | bytes | int | float
_SCRIPTS = Path(__file__).parent / "lua"
_SCRIPT_NAMES = ("lock", "renew", "release", "commit")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")
_TRANSIENT = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError, TimeoutError, OSError)
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class RedisConnection:
    """What handlers get as `call.connection`."""

    client: Redis
    """To read with. What is written by it at once is an effect like any other: it stays if the call fails."""
    commands: list[tuple[Word, ...]] = field(default_factory=list)
    """What `queue` was given."""

    def queue(self, *command: Word) -> None:
        """Has Redis run a command in the same step as it records the answer: `queue("DECRBY", "stock:apple", 2)`.

        Nothing of it happens if the call fails. A command that Redis refuses leaves the ones before it done, and the
        call fails: let none be refused. On a cluster its keys must be in the slot of the barrier's prefix.
        """
        self.commands.append(command)


class RedisBarrier(KeyedBarrier):
    """A barrier in Redis. The module's text says what it cannot promise.

    client: without decode_responses. name: of the participant; its keys begin with `{sagad:NAME}:`. wait_s: how long a
    call waits for Redis, and how long for another call with the same key, before it ends UNAVAILABLE. lease_s: how long
    after its process has died a call still blocks its key; a call that runs renews it. keep: for how long after the
    last call a key is known; let it exceed the longest time in which the coordinator may repeat a call or compensate
    (its retry_for, completion_timeout and saga deadlines together). Raises ValueError for what is malformed.
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        *,
        wait_s: float = 5.0,
        lease_s: float = 30.0,
        keep: timedelta = timedelta(days=7),
    ) -> None:
        if not _NAME.match(name):
            raise ValueError(f"{name!r} cannot name the barrier's keys: 1-100 of a-z, A-Z, 0-9, '.', '_', '-'")
        if lease_s <= 0 or keep < timedelta(seconds=lease_s):
            raise ValueError(f"lease_s ({lease_s:g}) must be above 0, and keep ({keep}) not shorter")
        if client.connection_pool.connection_kwargs.get("decode_responses"):
            raise ValueError("the client must not have decode_responses: the barrier's rows are bytes")
        self._client = client
        self._prefix = f"{{sagad:{name}}}:"
        self._wait_s = wait_s
        self._lease_s = lease_s
        self._keep_ms = round(keep / timedelta(milliseconds=1))
        scripts = {one: client.register_script((_SCRIPTS / f"{one}.lua").read_text()) for one in _SCRIPT_NAMES}
        self._lock, self._renew, self._release, self._commit = (scripts[one] for one in _SCRIPT_NAMES)
        self._sets = [self._prefix + "pending", self._prefix + "undelivered"]

    async def pending(self, limit: int = 100) -> list[Work]:
        """See Barrier."""
        return [work for work in await self._works(self._sets[0], limit) if work.outcome is None]

    async def undelivered(self, limit: int = 100) -> list[Work]:
        """See Barrier."""
        return [work for work in await self._works(self._sets[1], limit) if work.outcome is not None]

    async def prune(self, older_than: timedelta, limit: int = 1000) -> int:
        """Nothing, and returns 0: keys expire by themselves, see `keep`."""
        return 0

    @asynccontextmanager
    async def _transaction(
        self, key: str, claim: Claim | None = None, *, runs: bool = False
    ) -> AsyncIterator[tuple[RedisConnection, Rows]]:
        name, holder = self._hash(key), secrets.token_hex(8)
        token = claim.fencing_token if runs and claim is not None and claim.kind is Kind.ACTION else ""
        connection = RedisConnection(self._client)
        try:
            async with asyncio.timeout(None) as lease:
                rows = await self._locked(name, holder, token, claim, lease)
                renewing = asyncio.create_task(self._keep(name, holder, lease))
                try:
                    yield connection, rows
                finally:
                    renewing.cancel()
                    await asyncio.wait([renewing])
                await self._write(name, holder, connection, rows)
        except BaseException as error:
            await self._give_back(name, holder, undone=isinstance(error, Refused | Fenced))
            if isinstance(error, TimeoutError) and lease.expired():
                raise Unavailable(f"the lease of this call was lost: Redis was away for {self._lease_s:g} s") from error
            raise

    async def _locked(
        self, name: str, holder: str, token: int | str, claim: Claim | None, lease: asyncio.Timeout
    ) -> Rows:
        """The rows of a key once it is locked. Raises Unavailable if another call does not end in time."""
        loop = asyncio.get_running_loop()
        give_up_at, pause_s = loop.time() + self._wait_s, _FIRST_PAUSE_S
        while True:
            sent = loop.time()
            left_ms, *found = await self._run(self._lock, [name], holder, self._lease_ms, self._keep_ms, token)
            if found:
                lease.reschedule(sent + self._lease_s)
                return _rows(claim, *found)
            if loop.time() >= give_up_at:
                left_s = left_ms / 1000
                raise Unavailable(
                    f"another call with this key is still running; its lease ends in {left_s:g} s", retry_after_s=left_s
                )
            await asyncio.sleep(min(pause_s * (0.5 + random.random()), left_ms / 1000))  # noqa: S311 - jitter
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _keep(self, name: str, holder: str, lease: asyncio.Timeout) -> None:
        """Renews the lease; a lost one ends the call."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._lease_s / 3)
            sent = loop.time()
            try:
                kept = await self._run(self._renew, [name], holder, self._lease_ms)
            except Unavailable as error:
                logger.warning("the lease of %s was not renewed: %s", name, error)
                continue
            if lease.expired():
                return
            lease.reschedule(sent + self._lease_s if kept else loop.time())

    async def _write(self, name: str, holder: str, connection: RedisConnection, rows: Rows) -> None:
        words: list[Word] = [holder, self._keep_ms, len(connection.commands)]
        for command in connection.commands:
            words += [len(command), *command]
        for kind, row in rows.items():
            work = 0 if row.completion_token is None else 2 if row.status is Status.PENDING else 3
            member = f"{kind:d}:{row.claim.idempotency_key}"
            words += [int(kind), _encoded(row), work, row.created.timestamp(), member]
        if not await self._run(self._commit, [name, *self._sets], *words):
            raise Unavailable("the lease of this call was lost before its answer was recorded")

    async def _give_back(self, name: str, holder: str, *, undone: bool) -> None:
        try:
            await self._run(self._release, [name], holder, int(undone))
        except Unavailable as error:
            logger.warning("%s stays locked for %g s at most: %s", name, self._lease_s, error)

    async def _run(self, script: Any, keys: list[str], *words: Word) -> Any:
        try:
            async with asyncio.timeout(self._wait_s):
                return await script(keys=keys, args=words)
        except _TRANSIENT as error:
            raise Unavailable(f"Redis did not answer ({type(error).__name__})") from error

    async def _works(self, name: str, limit: int) -> list[Work]:
        found: Any = await self._client.zrange(name, 0, limit - 1)  # typed for all that it might return
        members = [member.decode().partition(":") for member in found]
        async with self._client.pipeline(transaction=False) as pipeline:
            for kind, _, key in members:
                pipeline.hget(self._hash(key), kind)
            return [_decoded(row).work() for row in await pipeline.execute() if row is not None]

    def _hash(self, key: str) -> str:
        return f"{self._prefix}key:{key}"

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)


def _rows(claim: Claim | None, begun: bytes, action: bytes, compensation: bytes) -> Rows:
    rows = {}
    if action:
        rows[Kind.ACTION] = _decoded(action)
    elif begun and claim is not None:  # an earlier call of the action has ended without an answer
        rows[Kind.ACTION] = Row(replace(claim, kind=Kind.ACTION), Status.RUNNING, None, int(begun))
    if compensation:
        rows[Kind.COMPENSATION] = _decoded(compensation)
    return rows


def _encoded(row: Row) -> str:
    claim = row.claim
    return json.dumps(
        {
            "idempotency_key": claim.idempotency_key,
            "kind": claim.kind,
            "namespace": claim.namespace,
            "saga_id": claim.saga_id,
            "step_id": claim.step_id,
            "status": row.status,
            "answer": None if row.answer is None else base64.b64encode(row.answer).decode(),
            "fencing_token": row.fencing_token,
            "completion_token": row.completion_token,
            "created": row.created.isoformat(),
            "touched": row.touched.isoformat(),
        }
    )


def _decoded(text: bytes) -> Row:
    held = json.loads(text)
    claim = Claim(
        idempotency_key=held["idempotency_key"],
        kind=Kind(held["kind"]),
        fencing_token=held["fencing_token"],
        namespace=held["namespace"],
        saga_id=held["saga_id"],
        step_id=held["step_id"],
        completion_token=held["completion_token"] or "",
    )
    return Row(
        claim=claim,
        status=Status(held["status"]),
        answer=None if held["answer"] is None else base64.b64decode(held["answer"]),
        fencing_token=held["fencing_token"],
        completion_token=held["completion_token"],
        created=datetime.fromisoformat(held["created"]),
        touched=datetime.fromisoformat(held["touched"]),
    )
