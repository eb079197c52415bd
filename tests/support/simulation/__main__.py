"""Runs the simulation: `--seed` replays one with its trace, `--minutes` hunts, `--mutants` runs each deliberate bug."""

import argparse
import sys
import time
from itertools import count
from random import SystemRandom

from support.simulation.mutants import MUTANTS, Mutant
from support.simulation.world import SAGAS, SimulatedWorld


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
    return _replay(arguments.seed) if arguments.seed is not None else _hunt(arguments.minutes)


def _replay(seed: int) -> int:
    world = SimulatedWorld(seed)
    fault = _fault(world)
    print(world.history.story())
    print(f"\nseed {seed}: trace {world.history.digest()}, {world.weather}")
    print(f"\n{fault}" if fault else "\nevery rule holds")
    return 1 if fault else 0


def _hunt(minutes: float) -> int:
    began_s = time.monotonic()
    first = SystemRandom().randrange(1 << 32)
    for done in count():
        elapsed_s = time.monotonic() - began_s
        if elapsed_s > minutes * 60:
            print(f"{done} seeds from {first} on, {done * SAGAS / elapsed_s:.0f} sagas a second: every rule holds")
            return 0
        world = SimulatedWorld(first + done)
        fault = _fault(world)
        if fault:
            print(f"seed {first + done} breaks a rule after {elapsed_s:.1f} s:\n{fault}")
            print(f"\nreplay it with its trace: make simulate SEED={first + done}")
            return 1
    raise AssertionError("counting never ends")


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


def _fault(world: SimulatedWorld) -> str:
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
