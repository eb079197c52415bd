"""How handlers get their names."""

import pytest

from sagad_participant import Action, Compensation, MemoryBarrier, Participant, UnknownHandler, action, compensation
from sagad_participant.rows import Kind


@pytest.fixture
def payment() -> Participant:
    return Participant("payment", barrier=MemoryBarrier())


class Card:
    def __init__(self) -> None:
        self.charged: list[str] = []

    @action("charge_card")
    async def charge(self, call: Action) -> None:
        self.charged.append(call.saga_id)

    @compensation("refund_card")
    async def refund(self, call: Compensation) -> None: ...

    async def unmarked(self) -> None: ...


class LoyalCard(Card):
    @action("add_points")
    async def add(self, call: Action) -> None: ...


def test_functions_and_objects_register_alike(payment: Participant) -> None:
    @payment.action("freeze_card")
    async def freeze(call: Action) -> None: ...

    payment.register(LoyalCard())
    assert payment.names(Kind.ACTION) == ["add_points", "charge_card", "freeze_card"]
    assert payment.names(Kind.COMPENSATION) == ["refund_card"]
    assert payment.handler(Kind.ACTION, "freeze_card") is freeze


def test_an_object_without_marked_methods_is_refused(payment: Participant) -> None:
    with pytest.raises(ValueError, match="object has no methods marked"):
        payment.register(object())


def test_a_name_is_given_once(payment: Participant) -> None:
    payment.register(Card())
    with pytest.raises(ValueError, match="two handlers for the action 'charge_card'"):
        payment.register(Card())


@pytest.mark.parametrize("name", ["", "a", "a b", "x" * 101, "-a", "a\n"])
def test_malformed_names_are_refused(payment: Participant, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        Participant(name, barrier=MemoryBarrier())

    async def handler(call: Action) -> None: ...

    with pytest.raises(ValueError, match="cannot name an action"):
        payment.action(name)(handler)


def test_a_handler_must_be_async(payment: Participant) -> None:
    def handler(call: Action) -> None: ...

    with pytest.raises(TypeError, match="'charge_card' must be an async function"):
        payment.action("charge_card")(handler)  # type: ignore[arg-type]


def test_an_unknown_name_says_what_there_is(payment: Participant) -> None:
    with pytest.raises(UnknownHandler, match="payment has no action 'charge'; its actions are: none"):
        payment.handler(Kind.ACTION, "charge")
