"""Runs the simulation: `--seed` replays one with its trace, `--minutes` hunts, `--mutants` runs each deliberate bug."""

import argparse
import sys
import time
from itertools import count

from support.simulation.hunting import fault_of, hunt
from support.simulation.mutants import MUTANTS, Mutant
from support.simulation.world import SimulatedWorld


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m support.simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="replay this seed and print its trace")
    what.add_argument("--minutes", type=float, help="try fresh seeds for so long")
    what.add_argument("--mutants", action="store_true", help="run the recorded seed of every mutant")
    what.add_argument("--hunt-mutants", action="store_true", help="look for a seed that catches each mutant")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="with this bug in")
    arguments = parser.parse_args()
    if arguments.mutants or arguments.hunt_mutants:
        return _mutants(hunts=arguments.hunt_mutants)
    if arguments.mutant:
        MUTANTS[arguments.mutant].patch()
    return _replay(arguments.seed) if arguments.seed is not None else hunt(arguments.minutes, arguments.mutant)


def _replay(seed: int) -> int:
    world = SimulatedWorld(seed)
    fault = fault_of(world)
    print(world.history.story())
    print(f"\nseed {seed}: trace {world.history.digest()}, {world.weather}")
    print(f"\n{fault}" if fault else "\nevery rule holds")
    return 1 if fault else 0


def _mutants(*, hunts: bool) -> int:
    escaped = 0
    for mutant in MUTANTS.values():
        began_s = time.monotonic()
        seed = _first_to_catch(mutant) if hunts else mutant.seed if mutant.is_caught() else None
        escaped += seed is None
        verdict = "ESCAPES" if seed is None else f"seed {seed}"
        print(f"{mutant.name:28} {verdict:12} {time.monotonic() - began_s:6.1f} s  {mutant.broken}", flush=True)
    return 1 if escaped else 0


def _first_to_catch(mutant: Mutant, seconds: float = 60.0) -> int | None:
    began_s = time.monotonic()
    for seed in count():
        if time.monotonic() - began_s > seconds:
            return None
        if mutant.is_caught(seed):
            return seed
    raise AssertionError("counting never ends")


if __name__ == "__main__":
    sys.exit(main())
