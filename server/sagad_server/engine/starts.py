"""Starts of sagas, and their repeats. A call returns once its answer is durable."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.definition import Definition
from sagad_server.domain.errors import (
    AlreadyExists,
    Elsewhere,
    Internal,
    InvalidArgument,
    SagadError,
    Unavailable,
)
from sagad_server.domain.inputs import Begin
from sagad_server.domain.locks import lock_names
from sagad_server.domain.saga import Saga, Step
from sagad_server.engine.active import ActiveSaga, Done
from sagad_server.engine.admission import arrival
from sagad_server.engine.definitions import Definitions
from sagad_server.engine.ends import Ends
from sagad_server.engine.engine import RETRY_AFTER_MS, Engine
from sagad_server.engine.loader import Loader, not_found, tombstone
from sagad_server.engine.ports import Snapshot, Tombstone
from sagad_server.storage.rows import Key, SagaRow


@dataclass(slots=True)
class Start:
    """StartSaga. `request_hash` is over everything that a repeat must have in common with it."""

    key: Key
    definition_id: str
    version: str
    input: Payload | None
    labels: Mapping[str, str]
    metadata: Mapping[str, str]
    timeout_ms: int | None
    request_hash: bytes
    made: UUID | None = None
    """The uid of the saga that was made for it. If that is not the one that is answered, another was there before."""


class Starts:
    """Starts sagas, and tells of what is there already."""

    def __init__(self, engine: Engine, definitions: Definitions, loader: Loader) -> None:
        self._engine = engine
        self._store = engine.store
        self._definitions = definitions
        self._loader = loader
        self.ends = Ends(engine, loader)
        self.admission = engine.admission
        self._answers: set[asyncio.Task[None]] = set()
        engine.on_conflict = self._answer_conflict

    async def start(self, command: Start, *, wait: bool) -> Snapshot | Tombstone:
        """Starts a saga, or returns the one that the same call has started. With `wait`, when it has ended or is
        parked.

        Raises AlreadyExists, NotFound, FailedPrecondition, ResourceExhausted, Unavailable.
        """
        future: asyncio.Future[Snapshot | Tombstone] = asyncio.get_running_loop().create_future()
        done = resolve(future)
        if arrival.get() is None and command.key not in self._engine.sagas:
            overload = self.admission.overload()
            if overload is not None:
                raise overload
        active = await self.begin(command, done, wait=wait)
        try:
            answer = await future
        finally:
            if active is not None:
                forget(active, done)
        if wait and isinstance(answer, Snapshot) and not answer.saga.at_rest:  # it sleeps
            return await self.ends.of(command.key)
        return answer

    async def begin(self, command: Start, done: Done, *, wait: bool) -> ActiveSaga | None:
        """The same by a callback: returns once the saga is on its way, which needs no more than a call unless something
        has to be read before. `done` hears of the end: what it is told first counts. A caller that leaves before has
        to `forget` the saga that this returns. With `wait`, a saga that falls asleep is told of as it is then: its end
        is one of `ends`. It is not refused because of overload: look before, and wait.

        Raises like `start` what is known at once; `done` then hears nothing.
        """
        coming = arrival.get() or self.admission.enter()
        try:
            active = await self._begin(command, done, wait=wait)
        except BaseException:
            coming.leave()
            raise
        if active is None or active.saga.revision or active.decision is None:  # a repeat, or refused by then
            coming.leave()
        else:
            coming.begin()
            active.dones.append(coming.told)
        return active

    async def _begin(self, command: Start, done: Done, *, wait: bool) -> ActiveSaga | None:
        self._check_serving()
        sagas = self._engine.sagas
        definition = self._definitions.peek(command.key[0], command.definition_id, command.version)
        if (definition is None or self.admission.full) and command.key not in sagas:
            row = await self._store.get_row(command.key)
            if row is not None and command.key not in sagas:
                done(await self._repeated(row, command.request_hash, wait=wait))
                return None
            if command.key not in sagas:
                definition = await self._definitions.to_start(command.key[0], command.definition_id, command.version)
        active = sagas.get(command.key)
        if active is None:
            assert definition is not None
            try:
                locks = lock_names(definition, command.input)
            except InvalidArgument:  # a repeat is answered before anything is checked
                row = await self._store.get_row(command.key)
                if row is None:
                    raise
                done(await self._repeated(row, command.request_hash, wait=wait))
                return None
            return self._new(command, definition, locks, done, wait=wait)
        if active.saga.revision == 0 and active.request_hash != command.request_hash:
            await self._settled(active)
            return await self._begin(command, done, wait=wait)
        return self._join(active, command, done, wait=wait)

    def _new(
        self, command: Start, definition: Definition, locks: tuple[str, ...], done: Done, *, wait: bool
    ) -> ActiveSaga:
        self._check_serving()  # still, since something may have been read
        self.admission.refuse_if_full()
        namespace, saga_id = command.key
        saga = Saga(
            definition=definition,
            namespace=namespace,
            saga_id=saga_id,
            uid=self._engine.random.uid(),
            input=command.input,
            labels=command.labels,
            metadata=command.metadata,
            timeout_ms=definition.timeout_ms if command.timeout_ms is None else command.timeout_ms,
            steps=[Step() for _ in definition.steps],
            locks=locks,
        )
        command.made = saga.uid
        active = ActiveSaga(command.key, saga, epoch=1, owned=True, request_hash=command.request_hash)
        self._engine.admit(active)
        if wait:
            active.at_rest.append(done)
        queues = bool(locks) and not self._engine.locks.reserve(saga)
        self._engine.submit(active, Begin(queues), _errors_only(done) if wait else done)
        return active

    def _join(self, active: ActiveSaga, command: Start, done: Done, *, wait: bool) -> ActiveSaga:
        """The saga is in memory: the call is a repeat, or takes an id that is not free."""
        _check_same(active.request_hash, command.request_hash, command.key)
        if active.saga.revision and not wait:
            done(active.snapshot())
        else:
            (active.at_rest if wait else active.dones).append(done)
        return active

    async def _settled(self, active: ActiveSaga) -> None:
        """Waits for the end of another start, which is not durable and therefore says nothing about its id yet."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        active.dones.append(lambda _: None if told.done() else told.set_result(None))
        await told

    async def _repeated(self, row: SagaRow, request_hash: bytes, *, wait: bool) -> Snapshot | Tombstone:
        _check_same(row.request_hash, request_hash, row.key)
        if row.purge_time is not None:
            return tombstone(row)
        answer = await self.get(row.key)
        moves = isinstance(answer, Snapshot) and not answer.saga.at_rest  # it may have moved on since the row
        if wait and moves and row.owner is not None:
            raise between_nodes(row.key, row.owner)
        return answer

    def _answer_conflict(self, active: ActiveSaga) -> None:
        task = asyncio.get_running_loop().create_task(self._tell_conflict(active))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _tell_conflict(self, active: ActiveSaga) -> None:
        """The insert met another saga: the callers get that one, if it is theirs."""
        for dones, wait in ((active.dones, False), (active.at_rest, True)):
            if dones:
                answer = await self._existing(active, wait=wait)
                for done in dones:
                    done(answer)
        for _, asked in active.waiting:
            if asked is not None:
                asked(between_nodes(active.key))

    async def _existing(self, active: ActiveSaga, *, wait: bool) -> Snapshot | Tombstone | SagadError:
        try:
            row = await self._store.get_row(active.key)
            if row is None:
                return between_nodes(active.key)
            return await self._repeated(row, active.request_hash, wait=wait)
        except SagadError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the callers must be told, whatever the saga's data makes raise
            incident_id = self._engine.random.uid().hex
            self._engine.observer.incident(active.key, incident_id, error)
            return Internal(f"saga {active.key[1]!r} cannot be read; sagad's log has incident {incident_id}")

    async def get(self, key: Key) -> Snapshot | Tombstone:
        """A saga as it durably is. Raises NotFound, Unavailable."""
        active = self._engine.sagas.get(key)
        if active is not None and active.saga.revision > 0 and self._engine.holds_lease():
            return active.snapshot()
        loaded = await self._store.load(key)
        if loaded is None:
            raise not_found(key)
        return await self._loader.snapshot(loaded)

    def _check_serving(self) -> None:
        if self._engine.draining:
            raise Unavailable("this node is shutting down", reason="DRAINING", retry_after_ms=RETRY_AFTER_MS)
        if not (self._engine.writer.healthy and self._engine.holds_lease()):
            raise Unavailable(
                "PostgreSQL does not take writes now; try again",
                reason="STORE_UNAVAILABLE",
                retry_after_ms=RETRY_AFTER_MS,
            )


def resolve(future: "asyncio.Future[Snapshot | Tombstone]") -> Done:
    """What tells this caller."""

    def done(result: Snapshot | Tombstone | SagadError) -> None:
        if future.done():  # the caller has left, or was told before
            return
        if isinstance(result, SagadError):
            future.set_exception(result)
        else:
            future.set_result(result)

    return done


def forget(active: ActiveSaga, done: Done) -> None:
    """The caller behind `done` has left, or has been told: a saga may take months, and be asked for often."""
    for waiters in (active.dones, active.at_rest):
        if done in waiters:
            waiters.remove(done)


def _errors_only(done: Done) -> Done:
    def errors(result: Snapshot | Tombstone | SagadError) -> None:
        if isinstance(result, SagadError):
            done(result)

    return errors


def _check_same(stored: bytes, given: bytes, key: Key) -> None:
    if stored != given:
        raise AlreadyExists(
            f"saga {key[1]!r} was started with other content: choose another saga_id, or repeat the same call",
            reason="SAGA_EXISTS",
        )


def between_nodes(key: Key, owner: UUID | None = None) -> Unavailable:
    """Why a saga cannot be asked for here and now."""
    message = f"saga {key[1]!r} is being taken over: try again"
    if owner is not None:
        return Elsewhere(message, owner=owner)
    return Unavailable(message, reason="TAKING_OVER", retry_after_ms=RETRY_AFTER_MS // 4)
