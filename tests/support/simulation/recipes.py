"""The definitions of a seed: three that are always there, and others made at random."""

from functools import cache
from random import Random

from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.definition import Definition, compile_definition
from support.definitions import PARTICIPANTS, definition, pivot, retriable, step

DEFINITION_IDS = ("chain", "pivot", "graph", "locked", "random")
_RETRY = {"initialBackoff": "0.2s", "maxBackoff": "2s", "retryFor": "20s"}
_FAST: dict[str, object] = {"retry": _RETRY, "maxRetries": 2, "timeout": "2s", "completionTimeout": "4s"}

_CONDITIONS = ("input.n < 3.0", "input.n < 8.0", "has(input.m)", "input.m > 2.0")
"""The last is an error for some inputs."""
_LOCKS = ("'x' + string(int(input.n))", "'y' + string(int(input.n) / 2)", "'z' + string(int(input.n) % 2)")
_INPUTS = ('{"n": input.n}', '{"m": input.m, "n": input.n}')
"""The same."""


@cache
def compiled(body: bytes) -> Definition:
    """A definition as it is stored."""
    return compile_definition(DefinitionMessage.FromString(body))


@cache
def _fixed() -> tuple[DefinitionMessage, ...]:
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
        _named("locked", step("one"), step("two"), locks=_LOCKS[:2]),
    )


def _named(name: str, *steps: dict[str, object], **fields: object) -> DefinitionMessage:
    return definition(*_spread([{**each, **_FAST} for each in steps]), definitionId=name, **fields)


def _spread(steps: list[dict[str, object]]) -> list[dict[str, object]]:
    """Over all participants."""
    return [{**each, "participant": PARTICIPANTS[i % len(PARTICIPANTS)]} for i, each in enumerate(steps)]


def definitions_of(chance: Random) -> list[DefinitionMessage]:
    """Those with which a seed begins."""
    return [*_fixed(), random_definition(chance, "random", "1.0.0")]


def random_definition(chance: Random, definition_id: str, version: str) -> DefinitionMessage:
    """A chain or a graph, with or without a pivot."""
    before, after = chance.randrange(6), chance.randrange(4)
    with_pivot = before == 0 or chance.random() < 0.5
    is_chain = chance.random() < 0.25
    steps: list[dict[str, object]] = []
    for i in range(before):
        undo: dict[str, object] = {"compensation": None, "readOnly": True} if chance.random() < 0.15 else {}
        steps.append(
            step(f"s{i}", *_some(chance, range(i), is_chain), **undo, **_details(chance, steps if is_chain else []))
        )
    if with_pivot:
        ancestors = [] if is_chain else [f"s{i}" for i in range(before)]
        steps.append(pivot(f"s{before}", *ancestors, **_details(chance, steps if is_chain else [])))
        for i in range(before + 1, before + 1 + after):
            needed = [] if is_chain else [f"s{chance.randrange(before, i)}"]
            more = [name for name in _some(chance, range(i), is_chain) if name not in needed]
            steps.append(retriable(f"s{i}", *needed, *more, **_details(chance, steps if is_chain else [])))
    extra: dict[str, object] = {"timeout": "8s"} if chance.random() < 0.15 else {}
    if chance.random() < 0.15:
        extra["locks"] = chance.sample(_LOCKS, chance.choice([1, 1, 2]))
    return definition(*_spread(steps), definitionId=definition_id, version=version, **extra)


def _some(chance: Random, earlier: range, is_chain: bool) -> list[str]:
    return [] if is_chain else [f"s{i}" for i in earlier if chance.random() < 0.4]


def _details(chance: Random, chain: list[dict[str, object]]) -> dict[str, object]:
    """What the steps of a definition differ in; `chain` are those before it, where each step depends on the last."""
    made: dict[str, object] = {
        "maxRetries": chance.randrange(4),
        "timeout": f"{chance.choice([1, 2, 3])}s",
        "completionTimeout": f"{chance.choice([2, 4, 6])}s",
        "retry": {
            "initialBackoff": f"{chance.choice([0.05, 0.2, 1.0])}s",
            "maxBackoff": "2s",
            "retryFor": f"{chance.choice([5, 20])}s",
            "retryableCodes": chance.choice([[], [], ["NOT_FOUND"], ["PERMISSION_DENIED"]]),
            "finalCodes": chance.choice([[], [], ["UNAVAILABLE"], ["INTERNAL", "DEADLINE_EXCEEDED"]]),
        },
    }
    if chance.random() < 0.2:
        made["when"] = chance.choice(_CONDITIONS)
    if chance.random() < 0.2:
        made["input"] = chance.choice([*_INPUTS, *_outputs(chain)])
    if chance.random() < 0.07:
        made["active"] = False
    return made


def _outputs(chain: list[dict[str, object]]) -> list[str]:
    """Expressions that read the output of the step before."""
    if not chain:
        return []
    last = chain[-1]["stepId"]
    return [f'has(steps.{last}.output) ? {{"id": steps.{last}.output}} : {{"n": input.n}}']
