"""Everything that can happen to one node, at random: nothing is lost, and nothing is undone twice."""

import pytest
from support.small_chaos import ChaosWorld

SEEDS = 200
_CHUNK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, _CHUNK))
async def test_whatever_happens_every_saga_ends_or_parks_and_its_effects_are_all_or_none(first: int) -> None:
    for seed in range(first, first + _CHUNK):
        try:
            await ChaosWorld(seed).run(turns=60)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
