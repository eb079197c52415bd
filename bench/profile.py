"""Where the coordinator's time goes: py-spy watches it under load, and the functions are added up."""

import shutil
import tempfile
from asyncio import create_task
from collections import Counter
from pathlib import Path

from bench.database import fresh_database
from bench.measure import WARM_UP_S, load
from bench.modes import Mode
from bench.processes import output_of
from bench.subjects import Subject

SAMPLES_PER_S = 200
ROWS = 40


async def profile(subject: Subject, mode: Mode, seconds: float, dsn: str) -> str:
    """Returns the functions by the share of samples spent in them. Ends the program if there is no py-spy."""
    py_spy = shutil.which("py-spy")
    if py_spy is None:
        raise SystemExit("this needs py-spy on the PATH: pip install py-spy")
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder, "stacks")
        async with fresh_database(dsn) as database, subject(database, mode) as running:
            await load(running, mode, WARM_UP_S)
            loading = create_task(load(running, mode, seconds))
            record = [py_spy, "record", "--format", "raw", "--rate", str(SAMPLES_PER_S), "--output", str(stacks)]
            await output_of(*record, "--duration", str(int(seconds)), "--pid", str(running.coordinator_pid))
            await loading
        return summarize(stacks.read_text())


def summarize(stacks: str) -> str:
    """`stacks` has lines such as `outer (file:1);inner (file:2) 17`: frames, and how often they were seen."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = [frame.rpartition(":")[0] + ")" for frame in frames.split(";")]
        own[names[-1]] += int(count)
        for name in set(names):
            total[name] += int(count)
    samples = own.total() or 1
    rows = [f"{own[name] / samples:6.1%} {total[name] / samples:6.1%}  {name}" for name, _ in own.most_common(ROWS)]
    return "\n".join(["   own  total  function", *rows])
