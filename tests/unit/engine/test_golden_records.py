"""What an older sagad has stored stays readable: these files are never made anew, only added to."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from support.definitions import definition, step
from support.play import Play, payload, refused

from sagad_server.domain.inputs import Success
from sagad_server.domain.saga import Saga
from sagad_server.domain.states import FailureCategory, SagaState, StepState
from sagad_server.engine.records import decode_saga, encode_event, encode_payload, encode_saga
from sagad_server.storage.rows import EventRow, LoadedSaga, SagaRow

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGE = definition(step("reserve"), step("charge", input='{"sku": input.sku}', maxRetries=1))


def played() -> Play:
    play = Play(MESSAGE, input={"sku": "abc"}, timeout_ms=90_000)
    play.answer("reserve", Success(payload({"id": "r-1"})))
    play.answer("charge", refused("BUSY", retryable=True))
    play.wait_over("charge")
    play.answer("charge", refused("NO_MONEY"))
    return play


def load(body: bytes, payloads: list[bytes]) -> Saga:
    row = SagaRow(
        namespace="default",
        saga_id="s-1",
        uid=UUID(int=7),
        definition_id="order",
        version="1.0.0",
        state=SagaState.COMPENSATING,
        revision=len(payloads),
        epoch=1,
        owner=None,
        labels={},
        request_hash=b"",
        parking_mask=0,
        category=2,
        incident_id="",
        park_time=None,
        create_time=NOW,
        update_time=NOW,
        end_time=None,
        purge_time=None,
        body=body,
    )
    events = [EventRow("default", "s-1", i + 1, 1, NOW, b"", one) for i, one in enumerate(payloads)]
    return decode_saga(LoadedSaga(row, events, NOW), played().saga.definition)


def test_a_saga_is_read_back_as_it_was_written() -> None:
    play = played()
    payloads = [encode_payload(play.saga, event) for event in play.events]
    again = load(encode_saga(play.saga), payloads)
    assert again == play.saga


def test_version_1_of_a_row_is_readable() -> None:
    payloads = [path.read_bytes() for path in sorted(GOLDEN.glob("payload_v1_*.binpb"))]
    saga = load((GOLDEN / "saga_v1.binpb").read_bytes(), payloads)
    assert [s.state for s in saga.steps] == [StepState.COMPENSATING, StepState.REFUSED]
    assert saga.compensating
    assert saga.timeout_ms == 90_000
    assert saga.failure is not None
    assert (saga.failure.category, saga.failure.reason) == (FailureCategory.BUSINESS, "NO_MONEY")
    assert saga.steps[0].output == payload({"id": "r-1"})
    assert saga.steps[1].input == payload({"sku": "abc"})
    assert saga.input == payload({"sku": "abc"})
    assert (saga.steps[1].attempt, saga.steps[1].retries) == (2, 1)


def test_version_1_of_an_event_is_readable() -> None:
    from sagad.storage.v1.storage_pb2 import EventRecord

    event = EventRecord.FromString((GOLDEN / "event_v1.binpb").read_bytes())
    assert event.state == SagaState.COMPENSATING
    assert [change.step_id for change in event.changes] == ["reserve", "charge"]
    assert event.failure.reason == "NO_MONEY"


def make_golden() -> None:
    """Was run once, for version 1."""
    play = played()
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "saga_v1.binpb").write_bytes(encode_saga(play.saga))
    for event in play.events:
        (GOLDEN / f"payload_v1_{event.revision}.binpb").write_bytes(encode_payload(play.saga, event))
    (GOLDEN / "event_v1.binpb").write_bytes(encode_event(play.events[-1], play.saga.definition))
