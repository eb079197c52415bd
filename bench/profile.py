"""Where the coordinator's time goes: py-spy watches it under load; a flame graph, and the functions added up."""

import os
import re
import shutil
import sys
from asyncio import create_task
from collections import Counter
from pathlib import Path

from bench.database import fresh_database
from bench.measure import WARM_UP_S, load
from bench.modes import Mode
from bench.processes import OUT, output_of
from bench.subjects import Subject

OPTIONS = ("--subprocesses", "--native", "--rate", "200")
ROWS = 40
UNIMPORTANT = re.compile(r"^0x[0-9a-f]+ |:\d+(?=\)$)")
"""The address of a function without a name, of which the library remains; the line."""
ATTACH_S = 1.0
"""What py-spy needs until it has attached itself."""


async def profile(subject: Subject, name: str, mode: Mode, seconds: float, dsn: str) -> str:
    """Draws a flame graph of the coordinator in bench/out, and returns the functions by the share of samples in them.

    Each is made of `seconds` of its own. Ends the program if there is no py-spy.
    """
    py_spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if py_spy is None:
        raise SystemExit("this needs py-spy: pip install py-spy")
    OUT.mkdir(exist_ok=True)
    outputs = {"raw": OUT / f"{name}.stacks", "flamegraph": OUT / f"{name}.svg"}
    async with fresh_database(dsn) as database, subject(database, mode) as running:
        await load(running, mode, WARM_UP_S)
        loading = create_task(load(running, mode, (seconds + ATTACH_S) * len(outputs)))
        for form, path in outputs.items():
            command = [py_spy, "record", *OPTIONS, "--duration", str(int(seconds)), "--format", form]
            command += ["--output", str(path), "--pid", str(running.coordinator_pid)]
            await output_of(*command)
        await loading
    return f"{summarize(outputs['raw'].read_text())}\n\nflame graph: {outputs['flamegraph']}"


def summarize(stacks: str) -> str:
    """`stacks` has lines such as `outer (file:1);inner (file:2) 17`: frames, and how often they were seen."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = [UNIMPORTANT.sub("", frame) for frame in frames.split(";")]
        own[names[-1]] += int(count)
        for name in set(names):
            total[name] += int(count)
    samples = own.total() or 1
    rows = [f"{own[name] / samples:6.1%} {total[name] / samples:6.1%}  {name}" for name, _ in own.most_common(ROWS)]
    return "\n".join(["   own  total  function", *rows])
