"""What the sagas of the bench do: definitions with default retries, at one participant."""

from collections.abc import Sequence

from google.protobuf import duration_pb2

from sagad.v1 import definition_pb2 as pb

COMPENSATIONS = {
    "reserve": "release",
    "charge": "refund",
    "insure": "cancel",
    "pack": "unpack",
    "ship": "recall",
    "refuse": "recall",
    "wait": "recall",
}
SLEEP_S = 65
"""For a pending answer: longer than what stays in memory."""


def definitions() -> list[pb.Definition]:
    return [
        chain("bench", ("reserve", "charge", "ship")),
        chain("bench-refused", ("reserve", "charge", "refuse")),
        graph("bench-graph"),
        chain("bench-asleep", ("wait",)),
        chain("bench-locked", ("reserve", "charge", "ship"), "'order/' + input.order"),
    ]


def chain(definition_id: str, actions: Sequence[str], *locks: str) -> pb.Definition:
    return definition(definition_id, [step(action) for action in actions], *locks)


def graph(definition_id: str) -> pb.Definition:
    """One step, three side by side, and one that needs them all."""
    middle = ("charge", "insure", "pack")
    steps = [step("reserve"), *(step(action, "reserve") for action in middle), step("ship", *middle)]
    return definition(definition_id, steps)


def definition(definition_id: str, steps: list[pb.StepDefinition], *locks: str) -> pb.Definition:
    return pb.Definition(
        definition_id=definition_id,
        version="1.0.0",
        name=definition_id,
        description=f"{len(steps)} steps at one participant, for the bench",
        steps=steps,
        locks=locks,
    )


def step(action: str, *depends_on: str) -> pb.StepDefinition:
    return pb.StepDefinition(
        step_id=action,
        name=action,
        description=f"asks the participant to {action}",
        participant="bench",
        action=action,
        compensation=COMPENSATIONS[action],
        depends_on=depends_on,
        completion_timeout=duration_pb2.Duration(seconds=SLEEP_S),
    )
