"""The graph of a definition's steps, as bit masks over their indexes: bit i stands for steps[i]."""

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from sagad.v1 import definition_pb2


def bits(mask: int) -> Iterator[int]:
    """The indexes in the mask, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def direct_dependencies(steps: Sequence[definition_pb2.StepDefinition]) -> list[int]:
    """For each step the mask of those it names in `depends_on`, or of the one before it if no step names any.

    Names that no step has are left out: they are a fault that validation reports.
    """
    if not any(step.depends_on for step in steps):
        return [1 << (i - 1) if i else 0 for i in range(len(steps))]
    index = {step.step_id: i for i, step in enumerate(steps)}
    requires = []
    for step in steps:
        mask = 0
        for name in step.depends_on:
            if name in index:
                mask |= 1 << index[name]
        requires.append(mask)
    return requires


def find_cycle(requires: Sequence[int]) -> list[int] | None:
    """The indexes of one cycle, each requiring the next and the last the first, or None."""
    try:
        TopologicalSorter({i: bits(mask) for i, mask in enumerate(requires)}).prepare()
    except CycleError as error:
        nodes: list[int] = error.args[1]  # each is required by the next; the first is repeated at the end
        return nodes[:0:-1]
    return None


def ancestors(requires: Sequence[int]) -> list[int]:
    """For each step the mask of all that must come before it. Raises graphlib.CycleError where there is a cycle."""
    closure = [0] * len(requires)
    for i in TopologicalSorter({i: bits(mask) for i, mask in enumerate(requires)}).static_order():
        closure[i] = requires[i]
        for parent in bits(requires[i]):
            closure[i] |= closure[parent]
    return closure


def inverse(masks: Sequence[int]) -> list[int]:
    """The opposite relation: bit j of result[i] is bit i of masks[j]."""
    result = [0] * len(masks)
    for j, mask in enumerate(masks):
        for i in bits(mask):
            result[i] |= 1 << j
    return result
