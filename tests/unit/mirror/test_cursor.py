"""Where a lane goes on, by its row and by what Kafka has of it."""

from uuid import UUID

import pytest

from sagad_server.mirror.cursor import Cursor, Diverged, check, decode, where_to_go_on
from sagad_server.storage.mirror import BEGINNING, Lane, LanePage, Mark, Place, Start

THIS, OTHER, BATCH = UUID(int=1), UUID(int=2), UUID(int=3)
MARK = Mark(Place(7, 70), BATCH, "database/1")


def lane(start: Start = Start.FIRST, *, begun: bool = False, place: Place = BEGINNING) -> Lane:
    return Lane("topic", 0, None, THIS, start, begun, place, "")


def test_a_place_in_kafka_is_read_as_it_was_written() -> None:
    assert decode(Cursor(THIS, MARK).encode()) == Cursor(THIS, MARK)


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"start_id": 1}', b"\xff"])
def test_what_the_mirror_did_not_write_is_no_place(value: bytes) -> None:
    with pytest.raises(Diverged, match="cannot be read"):
        decode(value)


@pytest.mark.parametrize(
    ("row", "cursor", "mark"),
    [
        (lane(), None, Mark(BEGINNING)),
        (lane(), Cursor(THIS, MARK), MARK),
        (lane(begun=True, place=Place(7, 70)), Cursor(THIS, MARK), MARK),
        (lane(begun=True, place=Place(6, 99)), Cursor(THIS, MARK), MARK),
        (lane(Start.CURSOR), Cursor(OTHER, MARK), Mark(MARK.place)),
        (lane(Start.CURSOR), None, Mark(BEGINNING)),
        (lane(Start.BEGINNING), Cursor(OTHER, MARK), Mark(BEGINNING)),
        (lane(Start.END, place=Place(9, 90)), Cursor(OTHER, MARK), Mark(Place(9, 90))),
    ],
)
def test_a_lane_goes_on_behind_what_kafka_has_or_where_an_operator_said(
    row: Lane, cursor: Cursor | None, mark: Mark
) -> None:
    assert where_to_go_on(row, cursor) == mark


@pytest.mark.parametrize(
    ("row", "cursor"),
    [
        (lane(), Cursor(OTHER, MARK)),
        (lane(begun=True, place=Place(7, 71)), Cursor(THIS, MARK)),
        (lane(begun=True, place=Place(7, 70)), Cursor(OTHER, MARK)),
        (lane(begun=True, place=Place(7, 70)), None),
    ],
)
def test_a_lane_whose_kafka_was_restored_or_belongs_to_another_journal_stands_still(
    row: Lane, cursor: Cursor | None
) -> None:
    with pytest.raises(Diverged):
        where_to_go_on(row, cursor)


def test_a_journal_of_another_history_or_without_the_last_event_has_diverged() -> None:
    check(MARK, LanePage([], more=False, known=True, history="database/1"))
    with pytest.raises(Diverged, match="was database/1 and is now database/2"):
        check(MARK, LanePage([], more=False, known=False, history="database/2"))
    with pytest.raises(Diverged, match="does not have the event at 7/70"):
        check(MARK, LanePage([], more=False, known=False, history="database/1"))
