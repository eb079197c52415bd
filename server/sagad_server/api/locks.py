"""Resource locks as the contract shows them: what a saga knows of its own, and what only the tables know."""

from collections.abc import Iterable

from sagad.v1 import saga_pb2
from sagad_server.domain.saga import Saga
from sagad_server.storage.locks import LockRow


def own_locks(saga: Saga) -> list[saga_pb2.SagaLock]:
    """In the order in which they are taken."""
    if saga.ended:
        return []
    return [
        saga_pb2.SagaLock(
            name=name,
            state=saga_pb2.LOCK_STATE_WAITING if name == saga.waits_for_lock else saga_pb2.LOCK_STATE_LATER,
        )
        if (token := saga.lock_tokens.get(name)) is None
        else saga_pb2.SagaLock(name=name, state=saga_pb2.LOCK_STATE_HELD, fencing_token=token)
        for name in saga.locks
    ]


def add_lock_rows(message: saga_pb2.Saga, rows: Iterable[LockRow]) -> None:
    """Adds tickets, times, holders and who waits. A row is newer than the message may be, and counts."""
    shown = {lock.name: lock for lock in message.locks}
    for row in rows:
        lock = shown.get(row.name) or message.locks.add(name=row.name)
        lock.ticket = row.ticket
        lock.request_time.FromDatetime(row.request_time)
        lock.waiting_saga_ids[:] = row.waiting
        lock.waiting_count = row.waiting_count
        if row.fencing_token is None:
            lock.state, lock.holder_saga_id = saga_pb2.LOCK_STATE_WAITING, row.holder
        else:
            lock.state, lock.fencing_token = saga_pb2.LOCK_STATE_HELD, row.fencing_token
            assert row.take_time is not None
            lock.take_time.FromDatetime(row.take_time)
