"""Does what a page tells its reader to do: runs its blocks of code in order, as written, and compares what they print.

* `sh` and `python` blocks are run. Behind the language may stand `exit=CODE` (that it ends with), `file=NAME` (write it
  to this file and do not run it) or `background=NAME` (it goes on running).
* A `text` block shows lines that the block before it prints, a `json` block a part of the JSON that it prints. `...`
  stands for anything, and so does any space for any other.
* Lines that call make are left out: the environment is there already.
* `<!-- test: stop NAME -->` ends what runs in the background, where the reader is told to press Ctrl-C.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.pages import Block, blocks
from support.processes import environment

TIMEOUT_S = 60.0
SHOWN = frozenset({"mermaid", "console"})
"""Languages that are for reading only."""


@dataclass
class Background:
    """A block that goes on running, and the file that it writes to."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@dataclass
class PageRunner:
    """A reader at work in a folder. `replace` says which texts of the page stand for others on this machine."""

    page: Path
    folder: Path
    replace: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    background: dict[str, Background] = field(default_factory=dict)
    output: str = ""
    """What the last block has printed."""
    _waits_for: Background | None = None

    def run(self) -> None:
        """Runs all blocks."""
        for block in blocks(self.page):
            self.step(block)

    def step(self, block: Block) -> None:
        """Runs one block, or compares what the one before it has printed."""
        where = f"{self.page.name}, line {block.line}"
        text = self._replaced(block.text)
        if block.language == "test":
            self._direct(text, where)
        elif name := block.options.get("file"):
            (self.folder / name).write_text(text)
        elif block.language in ("sh", "python"):
            self._run(block, text, where)
        elif block.language == "json":
            wanted = json.loads(text)
            assert any(holds(value, wanted) for value in values(self.output)), f"{where}: printed\n{self.output}"
        elif block.language == "text":
            self._compare(text, where)
        else:
            assert block.language in SHOWN, f"{where}: what is to be done with {block.language!r}?"

    def stop(self) -> None:
        """Ends all that still runs, the last one first."""
        while self.background:
            self.background.popitem()[1].stop()

    def _replaced(self, text: str) -> str:
        for old, new in self.replace.items():
            text = text.replace(old, new)
        return text

    def _direct(self, text: str, where: str) -> None:
        verb, _, name = text.partition(" ")
        assert verb == "stop", f"{where}: {text}"
        self.background.pop(name).stop()

    def _run(self, block: Block, text: str, where: str) -> None:
        self.output, self._waits_for = "", None
        if block.language == "python":
            script = self.folder / f"line_{block.line}.py"
            script.write_text(text)
            words = [sys.executable, str(script)]
        else:
            lines = [line for line in text.splitlines(keepends=True) if not line.startswith("make ")]
            words = ["bash", "-euo", "pipefail", "-c", "".join(lines)]
        if name := block.options.get("background"):
            self._start(name, words)
            return
        variables = self._environment()
        done = subprocess.run(
            words, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        self.output = done.stdout + done.stderr
        assert done.returncode == int(block.options.get("exit", "0")), f"{where}: {done.returncode}\n{self.output}"

    def _start(self, name: str, words: list[str]) -> None:
        assert name not in self.background, name
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, cwd=self.folder, env=self._environment(), stdout=out, stderr=out, start_new_session=True
            )
        self.background[name] = self._waits_for = Background(process, log)

    def _environment(self) -> dict[str, str]:
        binaries = Path(sys.executable).parent
        return environment() | {"PATH": f"{binaries}:{os.environ['PATH']}", "NO_COLOR": "1"} | dict(self.variables)

    def _compare(self, text: str, where: str) -> None:
        give_up_at = time.monotonic() + TIMEOUT_S
        waits_for = self._waits_for
        while waits_for is not None and not prints(self.output, text):
            self.output = waits_for.output()
            assert waits_for.process.poll() is None, f"{where}: it has ended:\n{self.output}"
            assert time.monotonic() < give_up_at, f"{where}: it does not print that:\n{self.output}"
            time.sleep(0.02)
        assert prints(self.output, text), f"{where}: printed\n{self.output}"


def prints(output: str, wanted: str) -> bool:
    """Whether the lines of `wanted` are among those of `output`, in order."""
    lines = iter(" ".join(line.split()) for line in output.splitlines())
    patterns = (re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*") for line in wanted.splitlines() if line)
    return all(any(re.fullmatch(pattern, line) for line in lines) for pattern in patterns)


def values(output: str) -> Iterator[Any]:
    """The JSON values that stand one after the other in the output."""
    decoder = json.JSONDecoder()
    position = 0
    while position < len(output.rstrip()):
        value, position = decoder.raw_decode(
            output, position + len(output[position:]) - len(output[position:].lstrip())
        )
        yield value


def holds(value: Any, part: Any) -> bool:
    """Whether JSON has all that a part of it shows; lists are shown whole."""
    if isinstance(part, dict):
        return isinstance(value, dict) and all(key in value and holds(value[key], each) for key, each in part.items())
    if isinstance(part, list):
        return isinstance(value, list) and len(value) == len(part) and all(map(holds, value, part))
    return bool(value == part)


def has_grpcurl() -> bool:
    return shutil.which("grpcurl") is not None
