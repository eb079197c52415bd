"""Several nodes in worlds where everything goes wrong: nothing is lost, and nothing is undone twice."""

import os

import pytest
from support.simulation.world import SimulatedWorld

SEEDS = int(os.environ.get("SAGAD_SIMULATION_SEEDS", "60"))
_CHUNK = 6


@pytest.mark.parametrize("first", range(0, SEEDS, _CHUNK))
def test_whatever_happens_every_saga_ends_or_parks_and_its_effects_are_all_or_none(first: int) -> None:
    for seed in range(first, first + _CHUNK):
        try:
            SimulatedWorld(seed).run()
        except BaseException as error:
            error.add_note(f"replay it with its trace: make simulate SEED={seed}")
            raise
