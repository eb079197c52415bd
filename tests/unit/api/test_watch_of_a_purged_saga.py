"""A watch of a saga that another node drives, and that is purged before its end was told."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.definitions import definition, step
from support.world import stored

from sagad.v1.saga_pb2 import Saga
from sagad.v1.saga_service_pb2 import WatchSagaResponse
from sagad_server.api.watch import Watch
from sagad_server.domain.errors import OutOfRange
from sagad_server.domain.states import EventCause, SagaState
from sagad_server.engine.watch import Watches
from sagad_server.storage.memory import MemoryStore
from sagad_server.storage.store import Batch, Key, NewSaga, SagaFilter, Write

KEY = ("default", "s-1")


async def test_it_ends_with_what_has_happened_instead_of_waiting_for_ever() -> None:
    store = MemoryStore()
    await store.open("another node")
    await store.create_definition(stored(definition(step("one"))), 10, 10)
    new = NewSaga(UUID(int=1), "order", "1.0.0", {}, b"")
    begun = Write(KEY, 1, 1, 1, SagaState.RUNNING, EventCause.STARTED, b"", b"", new=new)
    ended = Write(KEY, 2, 1, 1, SagaState.SUCCEEDED, EventCause.ANSWERED, b"", b"", ended=True, release=True)
    await store.commit(Batch(UUID(int=2), [begun]))
    shown: list[int] = []

    async def read(key: Key, *, full: bool) -> Saga:
        return Saga(saga_id=key[1], revision=1, state=SagaState.RUNNING.value)  # type: ignore[arg-type] # the same numbers

    async def send(message: WatchSagaResponse) -> None:
        shown.append(message.revision)
        if len(shown) == 1:
            await store.commit(Batch(UUID(int=3), [ended]))
            assert (await store.purge(None, SagaFilter(), timedelta(0), 1, dry_run=False)).count == 1

    engine: Any = SimpleNamespace(draining=False, watches=Watches(1, 1), sagas={}, store=store)
    with pytest.raises(OutOfRange) as refused:
        await Watch(engine, read, KEY, send, full=False, heartbeat_s=0.01).run(0)
    assert (refused.value.reason, shown) == ("PURGED", [1])
