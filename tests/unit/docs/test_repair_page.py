"""The page on repair has every reason for parking, with the calls that are allowed there."""

import pytest
from support.definitions import definition, step
from support.pages import DOCS, table
from support.play import Play

from sagad_server.domain.saga import parkings
from sagad_server.domain.states import ParkingReason, SagaState, StepState

ROWS = {reason.strip("`"): calls for reason, _, calls in table(DOCS / "how-to" / "repair.md", "What each reason means")}


def test_every_reason_is_on_the_page_and_no_other() -> None:
    assert list(ROWS) == [reason.name for reason in ParkingReason]


@pytest.mark.parametrize("reason", ParkingReason, ids=lambda reason: reason.name)
def test_the_calls_that_help_are_those_that_a_parked_saga_names(reason: ParkingReason) -> None:
    saga = Play(definition(step("first"))).saga
    saga.state = SagaState.PARKED
    if reason in (ParkingReason.INTERNAL, ParkingReason.NO_PROGRESS):
        saga.incident = reason
    else:
        saga.steps[0].state = StepState.PARKED
        saga.steps[0].parking_reason = reason
    (parking,) = parkings(saga)
    assert ROWS[reason.name] == ", ".join(parking.allowed_calls)
