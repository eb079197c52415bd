"""Reads a call's input; what is malformed is a business refusal that says so."""

from typing import Any

from sagad_participant import Refused

MAX_TEXT_CHARACTERS = 200
MAX_WHOLE_NUMBER = 10**12


def text(order: Any, name: str) -> str:
    """A field of 1-200 characters. Raises Refused."""
    value = order.get(name) if isinstance(order, dict) else None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT_CHARACTERS:
        raise Refused("INVALID_ORDER", f"{name} must be text of 1-{MAX_TEXT_CHARACTERS} characters, and is {value!r}")
    return value


def positive(order: Any, name: str) -> int:
    """A whole number above zero. Raises Refused."""
    value = order.get(name) if isinstance(order, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_WHOLE_NUMBER:
        raise Refused("INVALID_ORDER", f"{name} must be a whole number of 1-{MAX_WHOLE_NUMBER:,}, and is {value!r}")
    return value
