"""What events make of a saga's document."""

from datetime import UTC, datetime, timedelta

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1.saga_pb2 import SagaEvent, StepChange
from sagad_server.projection.document import SagaDocument, fold, rounded
from sagad_server.projection.faults import EventsMissing

BEGIN = datetime(2026, 1, 31, 23, 59, 50, 123_456, tzinfo=UTC)
STATES = [number for number in saga_pb2.SagaState.values() if number]
CATEGORIES = [number for number in common_pb2.FailureCategory.values() if number]
CODEC: CodecOptions[SagaDocument] = CodecOptions(tz_aware=True)

Store = dict[str, SagaDocument]


def event(revision: int, state: int = saga_pb2.SAGA_STATE_RUNNING, after_s: float = 0, **fields: object) -> SagaEvent:
    made = SagaEvent(
        namespace="default",
        saga_id="order-1",
        uid="uid-1",
        revision=revision,
        state=state,  # type: ignore[arg-type]
        definition_id="order",
        version="1.0.0",
        **fields,  # type: ignore[arg-type]
    )
    made.time.FromDatetime(BEGIN + timedelta(seconds=after_s))
    return made


def failed(step_id: str, category: int = common_pb2.FAILURE_CATEGORY_BUSINESS) -> StepChange:
    failure = common_pb2.Failure(category=category, reason="NO", step_id=step_id)  # type: ignore[arg-type]
    return StepChange(step_id=step_id, state=saga_pb2.STEP_STATE_BACKING_OFF, attempt=1, failure=failure)


def only(*events: SagaEvent) -> SagaDocument:
    (document,) = fold({}, events).values()
    return document


@st.composite
def topics(draw: st.DrawFn) -> list[SagaEvent]:
    """Events of some sagas of one id, one of them after the other or side by side, each in order."""
    left = {f"uid-{number}": draw(st.integers(1, 8)) for number in range(draw(st.integers(1, 3)))}
    revisions = dict.fromkeys(left, 0)
    events: list[SagaEvent] = []
    after_s = 0.0
    while uids := sorted(uid for uid in left if revisions[uid] < left[uid]):
        uid = draw(st.sampled_from(uids))
        revisions[uid] += 1
        after_s += draw(st.floats(0, 30))
        made = event(revisions[uid], draw(st.sampled_from(STATES)), after_s)
        made.uid = uid
        if draw(st.booleans()):
            made.changes.append(failed(draw(st.sampled_from(["a", "b"])), draw(st.sampled_from(CATEGORIES))))
        if draw(st.booleans()):
            made.changes.add(step_id="c", state=saga_pb2.STEP_STATE_RUNNING, attempt=revisions[uid])
        events.append(made)
    return events


def stored(documents: Store) -> Store:
    """As MongoDB gives them back."""
    return {uid: bson.decode(bson.encode(document), CODEC) for uid, document in documents.items()}


@given(topics(), st.data())
def test_restarts_repeats_and_a_replay_of_any_part_give_the_model_that_one_pass_gives(
    events: list[SagaEvent], data: st.DataObject
) -> None:
    model: Store = {}
    reached = 0
    while reached < len(events) or data.draw(st.booleans(), "again"):
        begin = data.draw(st.integers(0, reached), "committed")
        end = data.draw(st.integers(min(begin + 1, len(events)), len(events)), "written")
        model |= stored(fold(model, events[begin:end]))
        reached = max(reached, end)
    assert model == stored(fold({}, events))


@given(topics(), st.data())
def test_an_old_event_changes_nothing(events: list[SagaEvent], data: st.DataObject) -> None:
    model = fold({}, events)
    begin = data.draw(st.integers(0, len(events)))
    assert fold(model, events[begin:]) == {}


@given(topics())
def test_what_a_document_counts_is_in_the_events(events: list[SagaEvent]) -> None:
    for uid, document in fold({}, events).items():
        own = [each for each in events if each.uid == uid]
        changes = [change for each in own for change in each.changes if change.HasField("failure")]
        assert sum(each["count"] for each in document["failures"]) == len(changes)
        assert document["revision"] == len(own)
        assert document["complete"]
        ended = own[-1].state >= saga_pb2.SAGA_STATE_SUCCEEDED
        assert (document["end_time"] is not None) == (document["duration_ms"] is not None) == ended


def test_a_saga_that_is_compensated_after_its_success_has_its_last_end_and_no_other() -> None:
    succeeded = [event(1), event(2, saga_pb2.SAGA_STATE_SUCCEEDED, 1)]
    late = [*succeeded, event(3, saga_pb2.SAGA_STATE_SUCCEEDED, 2)]  # an answer that came late
    moving = [*late, event(4, saga_pb2.SAGA_STATE_COMPENSATING, 60)]
    again = [*moving, event(5, saga_pb2.SAGA_STATE_COMPENSATED, 90)]
    for events, state, duration_ms in (
        (succeeded, "SUCCEEDED", 1_000),
        (late, "SUCCEEDED", 1_000),
        (moving, "COMPENSATING", None),
        (again, "COMPENSATED", 90_000),
    ):
        document = only(*events)
        assert (document["state"], document["duration_ms"]) == (state, duration_ms)
        assert document["create_day"] == "2026-01-31"


def test_failures_are_counted_by_the_day_on_which_they_happened() -> None:
    document = only(*(event(revision, after_s=4 * revision, changes=[failed("pay")]) for revision in (1, 2, 3)))
    counts = [(each["day"], each["step_id"], each["category"], each["count"]) for each in document["failures"]]
    assert counts == [("2026-01-31", "pay", "BUSINESS", 2), ("2026-02-01", "pay", "BUSINESS", 1)]


def test_no_text_of_a_user_is_the_name_of_a_field() -> None:
    labels = {"a.b": "1", "$set": "2", "": "3"}
    document = only(event(1, labels=labels))
    assert {each["key"]: each["value"] for each in document["labels"]} == labels
    assert stored({"x": document})["x"] == document


def test_a_gap_stops_or_marks_the_saga_for_good() -> None:
    first, third, fourth = event(1), event(3), event(4, saga_pb2.SAGA_STATE_SUCCEEDED, 1)
    with pytest.raises(EventsMissing, match=r"default/order-1 \(uid-1\): revision 3 came after 1"):
        fold({}, [first, third])
    with pytest.raises(EventsMissing, match="revision 3 came after 0"):
        fold({}, [third])
    (marked,) = fold({}, [first, third, fourth], marks_gaps=True).values()
    assert not marked["complete"]
    assert marked["duration_ms"] == 1_000
    (beheaded,) = fold({}, [third, fourth], marks_gaps=True).values()
    assert not beheaded["complete"]
    assert (beheaded["state"], beheaded["create_time"], beheaded["duration_ms"]) == ("SUCCEEDED", None, None)


@given(st.integers(0, 10**13))
def test_a_rounded_duration_is_within_half_a_percent(duration_ms: int) -> None:
    assert abs(rounded(duration_ms) - duration_ms) <= duration_ms * 0.005
    assert len(str(rounded(duration_ms)).rstrip("0")) <= 3
