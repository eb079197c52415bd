"""The definitions of a seed: three that are always there, and one made at random."""

from functools import cache
from random import Random

from sagad.v1.definition_pb2 import Definition
from support.definitions import definition, pivot, retriable, step

_RETRY = {"initialBackoff": "0.2s", "maxBackoff": "2s", "retryFor": "20s"}
_FAST: dict[str, object] = {"retry": _RETRY, "maxRetries": 2, "timeout": "2s", "completionTimeout": "4s"}


def _named(name: str, *steps: dict[str, object]) -> Definition:
    return definition(*({**each, **_FAST} for each in steps), definitionId=name)


@cache
def _fixed() -> tuple[Definition, ...]:
    return (
        _named("chain", step("one"), step("two", when="input.n < 8.0"), step("three")),
        _named("pivot", step("one"), pivot("pay", "one"), retriable("ship", "pay"), retriable("mail", "pay")),
        _named(
            "graph",
            step("root"),
            step("left", "root", input='{"n": input.n}'),
            step("right", "root"),
            step("look", "root", compensation=None, readOnly=True),
            step("end", "left", "right", "look"),
        ),
    )


def definitions_of(chance: Random) -> list[Definition]:
    """Of one seed."""
    return [*_fixed(), _random(chance)]


def _random(chance: Random) -> Definition:
    before, after = chance.randrange(1, 5), chance.randrange(3)
    steps = [step(f"s{i}", *_some(chance, [f"s{k}" for k in range(i)])) for i in range(before)]
    if chance.random() < 0.5:
        steps.append(pivot("point", *(f"s{i}" for i in range(before))))
        for i in range(after):
            steps.append(retriable(f"r{i}", "point", *_some(chance, [f"r{k}" for k in range(i)])))  # noqa: PERF401
    if not any(each["dependsOn"] for each in steps):  # else it would be a chain
        steps.append(step("last", "s0"))
    return _named("random", *steps)


def _some(chance: Random, names: list[str]) -> list[str]:
    return [name for name in names if chance.random() < 0.4]
