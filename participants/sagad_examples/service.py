"""What the three examples have in common: a participant, its tables, its faults and its pending work."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import asyncpg

from sagad_examples.faults import Faults, Mode
from sagad_participant import (
    Action,
    AlreadyCompleted,
    Compensation,
    Kind,
    Participant,
    Pending,
    PendingClosed,
    Refused,
    Work,
)
from sagad_participant.postgres import PostgresBarrier

_HERE = Path(__file__).parent
_FOREVER_S = 3600.0
_ADD_TODO = "INSERT INTO {schema}.todo (idempotency_key, name, input) VALUES ($1, $2, $3)"
_TAKE_TODO = "DELETE FROM {schema}.todo WHERE idempotency_key = $1 RETURNING name, input"
_ADD_EFFECT = "INSERT INTO {schema}.effect (idempotency_key, kind, name, order_id, amount) VALUES ($1, $2, $3, $4, $5)"

Effect = Callable[[Any, str, Any], Awaitable[dict[str, object]]]
"""An action's work: connection, idempotency key and input in, output out."""


class Service(ABC):
    """One example. Its participant, and the schema with its tables, are called `name`."""

    name: ClassVar[str]

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", faults: Faults) -> None:
        self.barrier = PostgresBarrier(pool, schema=self.name)
        self.participant = Participant(self.name, barrier=self.barrier)
        self.participant.register(self)
        self._pool = pool
        self._faults = faults

    @property
    @abstractmethod
    def effects(self) -> Mapping[str, Effect]:
        """The work of each action, by name."""

    def targets(self) -> list[str]:
        """What a fault can name here: the participant, its actions, its compensations."""
        return [self.name, *self.participant.names(Kind.ACTION), *self.participant.names(Kind.COMPENSATION)]

    async def create(self) -> None:
        """Makes the tables that are missing. Several processes may do so at once."""
        own = (_HERE / f"{self.name}.sql").read_text()
        common = self._sql((_HERE / "tables.sql").read_text())
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('sagad_examples'))")
            await connection.execute(common + own)
        await self.barrier.create()

    async def act(self, call: Action) -> object:
        """Runs an action, or lets it fail as the switch says."""
        match self._faults.of(self.name, call):
            case Mode.REFUSE:
                raise Refused("REFUSED_ON_PURPOSE", f"the switch makes {call.action} refuse")
            case Mode.TIMEOUT:
                await _until_given_up(call)
            case Mode.PENDING:
                todo = (call.idempotency_key, call.action, json.dumps(call.json))
                await call.connection.execute(self._sql(_ADD_TODO), *todo)
                return Pending
        return await self.effects[call.action](call.connection, call.idempotency_key, call.json)

    async def nothing_to_undo(self, call: Compensation) -> bool:
        """For compensations: whether the action was pending, and so had no effect. Applies the switch, too."""
        match self._faults.of(self.name, call):
            case Mode.REFUSE:
                raise Refused("REFUSED_ON_PURPOSE", f"the switch makes {call.compensation} refuse")
            case Mode.TIMEOUT:
                await _until_given_up(call)
        if call.was_pending:
            await call.connection.execute(self._sql(_TAKE_TODO), call.idempotency_key)
        return call.was_pending

    async def complete(self, work: Work) -> None:
        """Does pending work, unless it was compensated meanwhile."""
        try:
            async with self.barrier.completion(work.idempotency_key, work.kind) as completion:
                todo = await completion.connection.fetchrow(self._sql(_TAKE_TODO), work.idempotency_key)
                effect = self.effects[todo["name"]]
                try:
                    async with completion.connection.transaction():
                        output = await effect(completion.connection, work.idempotency_key, json.loads(todo["input"]))
                except Refused as refusal:
                    completion.refuse(refusal)
                else:
                    completion.succeed(output)
        except (PendingClosed, AlreadyCompleted):
            return

    async def record(self, connection: Any, key: str, kind: str, name: str, order_id: str, amount: int) -> None:
        """Writes an effect into the ledger."""
        await connection.execute(self._sql(_ADD_EFFECT), key, kind, name, order_id, amount)

    def _sql(self, template: str) -> str:
        return template.replace("{schema}", self.name)


async def _until_given_up(call: Action | Compensation) -> None:
    await asyncio.sleep(_FOREVER_S if call.remaining_s is None else call.remaining_s + 1)
