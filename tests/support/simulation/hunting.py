"""Fresh seeds, as many as there is time for."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from random import SystemRandom

from support.simulation.mutants import MUTANTS
from support.simulation.world import SimulatedWorld


@dataclass(slots=True)
class _Hunt:
    """What one process has tried."""

    seeds: int = 0
    sagas: int = 0
    transitions: int = 0
    failing_seed: int | None = None
    fault: str = ""


def hunt(minutes: float, mutant: str | None) -> int:
    """Tries fresh seeds on all cores, a process for each, and prints what came of it: the status to exit with."""
    began_s = time.monotonic()
    first, processes = SystemRandom().randrange(1 << 32), os.cpu_count() or 1
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        hunts = list(pool.map(_try_seeds, *zip(*_shares(first, processes, minutes, mutant), strict=True)))
    elapsed_s = time.monotonic() - began_s
    for hunt in hunts:
        if hunt.fault:
            print(f"seed {hunt.failing_seed} breaks a rule:\n{hunt.fault}")
            print(f"\nreplay it with its trace: make simulate SEED={hunt.failing_seed}")
    seeds, sagas = sum(hunt.seeds for hunt in hunts), sum(hunt.sagas for hunt in hunts)
    transitions = sum(hunt.transitions for hunt in hunts) / max(1, sagas)
    print(
        f"{seeds} seeds from {first} on, in {processes} processes: "
        f"{sagas / elapsed_s:.0f} sagas a second of real time, {transitions:.1f} transitions each"
    )
    if any(hunt.fault for hunt in hunts):
        return 1
    print("every rule holds")
    return 0


def _shares(first: int, processes: int, minutes: float, mutant: str | None) -> list[tuple[int, int, float, str | None]]:
    return [(first + number, processes, minutes, mutant) for number in range(processes)]


def _try_seeds(first: int, step: int, minutes: float, mutant: str | None) -> _Hunt:
    """One process's share: until the time is over, or a seed breaks a rule."""
    if mutant is not None:
        MUTANTS[mutant].patch()
    tried, began_s = _Hunt(), time.monotonic()
    for seed in count(first, step):
        if time.monotonic() - began_s > minutes * 60:
            break
        world = SimulatedWorld(seed)
        tried.fault = fault_of(world)
        tried.seeds += 1
        tried.sagas += len(world.database.sagas)
        tried.transitions += sum(one.revision > 0 for one in world.history.applied)
        if tried.fault:
            tried.failing_seed = seed
            break
    return tried


def fault_of(world: SimulatedWorld) -> str:
    """Runs it. What broke a rule, or nothing."""
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    return ""
