"""What participants say they implement, and what a definition asks of them beyond that."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from sagad.v1.definition_pb2 import Definition
from sagad.v1.participant_service_pb2 import DescribeResponse
from sagad_server.domain.checks import Checker

Answers = Mapping[str, DescribeResponse | str]
"""By participant; a text says why it did not answer."""


class Describer(Protocol):
    """Asks participants what they implement."""

    async def describe(self, name: str) -> DescribeResponse | str:
        """Within a few seconds; a text says why there is no answer."""


async def describe_all(describer: Describer, names: Iterable[str]) -> Answers:
    """Asks them all at once."""
    ordered = sorted(names)
    answers = await asyncio.gather(*(describer.describe(name) for name in ordered))
    return dict(zip(ordered, answers, strict=True))


def check_implemented(check: Checker, definition: Definition, answers: Answers) -> None:
    """Notes each action and compensation that its participant has said not to have."""
    for i, step in enumerate(definition.steps):
        answer = answers.get(step.participant)
        if isinstance(answer, DescribeResponse):
            path, name = f"definition.steps[{i}]", f"of participant {step.participant!r}"
            if step.action:
                check.one_of(f"{path}.action", step.action, answer.actions, f"actions {name}")
            if step.compensation:
                check.one_of(f"{path}.compensation", step.compensation, answer.compensations, f"compensations {name}")


def unchecked(answers: Answers) -> list[str]:
    """A warning for each participant that did not answer."""
    return [
        f"participant {name!r} did not say what it implements, so that its actions are not checked: {answer}"
        for name, answer in answers.items()
        if isinstance(answer, str)
    ]
