"""What callers may ask of sagas. Each call returns once its answer is durable."""

import asyncio
from collections.abc import Callable

from sagad.v1.common_pb2 import Payload
from sagad_server.domain.errors import (
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
    Violation,
)
from sagad_server.domain.inputs import Abandon, Compensate, Complete, Failed, Input, Retry, Skip, Success
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import ENDED, SagaState
from sagad_server.engine.active import ActiveSaga
from sagad_server.engine.engine import RETRY_AFTER_MS
from sagad_server.engine.loader import not_found
from sagad_server.engine.ports import Snapshot, Tombstone
from sagad_server.engine.starts import Starts, between_nodes, resolve
from sagad_server.engine.waits import calls_nobody
from sagad_server.storage.rows import Key


class Commands(Starts):
    """The engine's front: starts, answers and steers sagas, in memory or not."""

    async def compensate(self, key: Key, *, reason: str, actor: str) -> Snapshot | Tombstone:
        """CompensateSaga. Raises NotFound, FailedPrecondition, Unavailable."""
        return await self._ask(key, lambda _: Compensate(reason, actor))

    async def complete(
        self, key: Key, step_id: str, token: str, outcome: Success | Failed, *, actor: str
    ) -> Snapshot | Tombstone:
        """CompleteStep. Raises NotFound, PermissionDenied, FailedPrecondition, Unavailable."""

        def make(active: ActiveSaga) -> Input:
            step = _step_index(active.saga, step_id)
            meant = self._engine.tokens.read(token, active.saga, step)
            if meant is None:
                raise PermissionDenied(
                    f"the completion_token is not one of step {step_id!r} of this saga: give what came with the call",
                    reason="WRONG_COMPLETION_TOKEN",
                )
            since = active.saga.steps[step].since_revision
            elapsed_ms = active.elapsed_ms(since, self._engine.clock.monotonic())
            return Complete(step, *meant, outcome, elapsed_ms, self._engine.random.random(), actor)

        return await self._ask(key, make)

    async def retry(
        self, key: Key, *, revision: int, step_id: str, new_input: Payload | None, reason: str, actor: str
    ) -> Snapshot | Tombstone:
        """RetrySaga. Raises NotFound, Aborted, FailedPrecondition, InvalidArgument, Unavailable."""
        return await self._ask(
            key,
            lambda active: Retry(
                revision, _step_index(active.saga, step_id) if step_id else None, new_input, reason, actor
            ),
        )

    async def skip(
        self,
        key: Key,
        *,
        revision: int,
        step_id: str,
        executed: bool | None,
        output: Payload | None,
        reason: str,
        actor: str,
    ) -> Snapshot | Tombstone:
        """SkipStep. Raises NotFound, Aborted, FailedPrecondition, InvalidArgument, Unavailable."""
        return await self._ask(
            key, lambda active: Skip(revision, _step_index(active.saga, step_id), executed, output, reason, actor)
        )

    async def abandon(self, key: Key, *, revision: int, reason: str, actor: str) -> Snapshot | Tombstone:
        """AbandonSaga. Raises NotFound, Aborted, FailedPrecondition, Unavailable."""
        return await self._ask(key, lambda _: Abandon(revision, reason, actor))

    async def _ask(self, key: Key, make: Callable[[ActiveSaga], Input]) -> Snapshot | Tombstone:
        self._check_serving()
        active = self._engine.sagas.get(key) or await self._load(key)
        if active.saga.revision == 0:  # not durable: the id may yet turn out to be another saga's
            raise Unavailable(
                f"saga {key[1]!r} is just being started: try again",
                reason="TAKING_OVER",
                retry_after_ms=RETRY_AFTER_MS // 4,
            )
        what = make(active)
        if self._engine.sagas.get(key) is None:
            self._engine.admit(active)
        future: asyncio.Future[Snapshot | Tombstone] = asyncio.get_running_loop().create_future()
        self._engine.submit(active, what, resolve(future))
        return await future

    async def _load(self, key: Key) -> ActiveSaga:
        """A saga at rest or asleep, not yet in memory: a refused request leaves no trace of it."""
        loaded = await self._store.load(key)
        if loaded is None:
            raise not_found(key)
        row = loaded.row
        if row.purge_time is not None:
            raise FailedPrecondition(f"saga {key[1]!r} is purged: only its end is known", reason="PURGED")
        if row.owner is not None and row.state not in ENDED and row.state != SagaState.PARKED:
            raise between_nodes(key, row.owner)
        active = await self._loader.active(loaded, owned=False)
        assert active.saga.at_rest or calls_nobody(active.saga), f"nobody owns {key}, and a call is under way"
        return self._engine.sagas.get(key) or active


def _step_index(saga: Saga, step_id: str) -> int:
    index = saga.definition.index.get(step_id)
    if index is None:
        known = ", ".join(saga.definition.index)
        raise InvalidArgument.of([Violation("step_id", f"{step_id!r} is no step of this saga; they are {known}")])
    return index
