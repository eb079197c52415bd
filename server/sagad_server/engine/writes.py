"""Transitions as the writes that make them durable."""

from sagad_server.domain.draft import Decision
from sagad_server.engine import records
from sagad_server.engine.active import ActiveSaga
from sagad_server.storage.writes import NewSaga, Write


def write_of(active: ActiveSaga, decision: Decision, wake_after_ms: int | None) -> Write:
    """What a saga is to become, guarded by where it stands; not None: it sleeps that long. Raises whatever its data
    makes the encoder raise."""
    saga, event = decision.saga, decision.event
    new = None
    if saga.revision == 1:
        definition = saga.definition
        new = NewSaga(saga.uid, definition.definition_id, definition.version, saga.labels, active.request_hash)
    return Write(
        key=active.key,
        revision=saga.revision,
        guard_epoch=active.epoch,
        epoch=active.epoch if active.owned else active.epoch + 1,
        state=saga.state,
        cause=event.cause,
        body=records.encode_saga(saga),
        event=records.encode_event(event, saga.definition),
        payload=records.encode_payload(saga, event),
        wake_after_ms=wake_after_ms,
        parking_mask=records.parking_mask(saga),
        category=saga.failure.category if saga.failure is not None else 0,
        ended=saga.ended,
        release=saga.at_rest or wake_after_ms is not None,
        new=new,
        takes=saga.locks if new is not None and not saga.waits_for_lock and not saga.ended else (),
        queues_for=decision.queue_for,
        gives_back=saga.ended and bool(saga.locks),
    )
