"""A seed is worth nothing unless it tells the same story again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_DIGEST = "from support.simulation.world import SimulatedWorld; print(SimulatedWorld({seed}).run().digest())"


@pytest.mark.parametrize("seed", [3, 7, 9])
def test_a_seed_replays_to_the_letter_in_another_process_with_other_hashes(seed: int) -> None:
    digests = [_digest(seed, hashes) for hashes in ("1", "4242")]
    assert digests[0] == digests[1]


def _digest(seed: int, hashes: str) -> str:
    paths = [ROOT / name for name in ("tests", "proto", "server", "participants", "clients")]
    environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-c", _DIGEST.format(seed=seed)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout
