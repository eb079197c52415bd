"""The simulation finds bugs: each deliberate one is caught by its recorded seed."""

import pytest
from support.simulation.mutants import MUTANTS
from support.simulation.world import SimulatedWorld


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_is_caught_by_its_recorded_seed(name: str) -> None:
    mutant = MUTANTS[name]
    assert mutant.is_caught(), f"{mutant.broken}: seed {mutant.seed} does not see it"


@pytest.mark.parametrize("seed", sorted({mutant.seed for mutant in MUTANTS.values()}))
def test_a_recorded_seed_breaks_no_rule_without_the_bug(seed: int) -> None:
    SimulatedWorld(seed).run()
