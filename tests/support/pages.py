"""Reads the pages of docs/ as their readers do: tables, code blocks, links."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))

_BLOCK = re.compile(r"^```(\w*)[ ]*([^\n]*)\n(.*?)^```$|^<!-- test: ([^\n]+) -->$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code, or (language `test`) a word to the test that runs the page, which readers do not see."""

    language: str
    text: str
    line: int
    """Of the page, from 1: where the block begins."""
    options: dict[str, str] = field(default_factory=dict)
    """What stands behind the language, as key=value or as a single word."""


def blocks(page: Path) -> list[Block]:
    """In the order of the page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match[4]:
            found.append(Block("test", match[4], line))
        else:
            words = (word.partition("=") for word in match[2].split())
            found.append(Block(match[1], match[3], line, {key: value for key, _, value in words}))
    return found


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table after the heading, without the row of headers."""
    _, _, section = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines is not None, f"{page} has no table under {heading!r}"
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in lines[0].splitlines()]
    return rows[2:]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may name, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The targets of the page's links that lead into this repository."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith(("http:", "https:"))]
