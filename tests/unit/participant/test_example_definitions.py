"""The definitions of the examples."""

from pathlib import Path

import pytest

from sagad_client import load_definitions
from sagad_examples.definition_files import definition_files
from sagad_examples.faults import Faults
from sagad_examples.inventory import Inventory
from sagad_examples.payment import Payment
from sagad_examples.shipping import Shipping
from sagad_participant import Kind
from sagad_server.domain.validation import ValidationLimits, definition_violations

PARTICIPANTS = {
    service.name: service(None, Faults()).participant  # type: ignore[arg-type] # no handler runs
    for service in (Inventory, Payment, Shipping)
}


def test_there_are_two() -> None:
    assert [file.name for file in definition_files()] == ["order-pivot.yaml", "order.yaml"]


@pytest.mark.parametrize("file", definition_files(), ids=lambda file: file.name)
def test_each_is_valid(file: Path) -> None:
    (definition,) = load_definitions(file)
    assert definition.definition_id == file.stem
    assert definition_violations(definition, ValidationLimits(), participants=PARTICIPANTS.keys()) == []


@pytest.mark.parametrize("file", definition_files(), ids=lambda file: file.name)
def test_the_participants_have_what_each_names(file: Path) -> None:
    (definition,) = load_definitions(file)
    for step in definition.steps:
        participant = PARTICIPANTS[step.participant]
        assert step.action in participant.names(Kind.ACTION)
        assert not step.compensation or step.compensation in participant.names(Kind.COMPENSATION)
