#!/usr/bin/env python3
"""Writes docs/reference/sagactl.md and sagad.md from the commands' own help; with --check it only compares."""

import re
import sys
from pathlib import Path

from cyclopts import App

from sagad_client.cli import app as sagactl
from sagad_client.commands import exits
from sagad_server.cli import cli as sagad

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
SOURCE = "This page is made from the command's own help by `python tools/command_reference.py`.\n"
_CONTENTS = re.compile(r"## Table of Contents\n\n(?:\s*- .*\n)+\n")
_COMMON = re.compile(r"\*\*Options of every command\*\*:\n\n(?:\* .*\n)+\n?")
_SECTION = re.compile(r"^(?=##+ )", re.MULTILINE)


def main() -> int:
    stale = False
    for name, page in {"sagactl": sagactl_page(), "sagad": sagad_page()}.items():
        path = FOLDER / f"{name}.md"
        if "--check" not in sys.argv[1:]:
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            stale = True
            print(f"{path} is stale: run python tools/command_reference.py")
    return int(stale)


def sagactl_page() -> str:
    """The options of every command stand once, and each command has its examples."""
    first, *sections = _sections(sagactl)
    codes = exits.HELP.partition("\n")[2]
    head = f"{first}## Exit codes\n\n```text\n{_undented(codes)}\n```\n\n"
    return head + "".join(_COMMON.sub("", section) + _examples(section) for section in sections).rstrip() + "\n"


def sagad_page() -> str:
    return "".join(_sections(sagad)).rstrip() + "\n"


def _sections(app: App) -> list[str]:
    text = _CONTENTS.sub("", app.generate_docs()).replace("(#sagactl-install", "(#sagactl---install")  # GitHub's anchor
    title, _, rest = text.partition("\n")
    return _SECTION.split(f"{title}\n\n{SOURCE}{rest}")


def _examples(section: str) -> str:
    """The examples of the command that a section is about."""
    words = section.partition("\n")[0].lstrip("# ").split()[1:]
    app = sagactl
    for word in words:
        app = app[word]
    found = re.match(r"Examples:\n(.*?)\n\n", str(app.help_epilogue or ""), re.DOTALL)
    return f"```sh\n{_undented(found[1])}\n```\n\n" if found else ""


def _undented(text: str) -> str:
    return "\n".join(line.removeprefix("  ") for line in text.split("\n"))


if __name__ == "__main__":
    sys.exit(main())
