"""Writes the table of keys in docs/reference/configuration.md from the models. With --check it only compares."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic.fields import FieldInfo

from sagad_server.config import keys
from sagad_server.config_values import Duration, format_duration

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"
BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"


def main() -> int:
    old = PAGE.read_text(encoding="utf-8")
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n{table()}{END}{after}"
    if "--check" in sys.argv[1:]:
        if new != old:
            print(f"{PAGE} is stale: run python tools/config_reference.py")
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


def table() -> str:
    rows = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    rows += [f"| `{key}` | {default(info)} | {allowed(info)} | {meaning(key, info)} |" for key, info in keys()]
    return "\n".join(rows) + "\n"


def default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default_factory is not None:
        return "the host's name"
    value: Any = info.default
    if value is None or value == {}:
        return "none"
    if any(isinstance(each, Duration) for each in info.metadata):
        return format_duration(value)
    return f"{value:,}" if type(value) is int else str(value).lower() if isinstance(value, bool) else str(value)


def allowed(info: FieldInfo) -> str:
    return " ".join(_allowed(info)) or "any"


def _allowed(info: FieldInfo) -> Iterator[str]:
    if get_origin(info.annotation) is Literal:
        yield ", ".join(get_args(info.annotation))
    if info.annotation is bool:
        yield "true, false"
    for kind, word in ((Ge, ""), (Le, "- ")):
        for each in info.metadata:
            if isinstance(each, kind):
                yield f"{word}{each.ge if isinstance(each, Ge) else each.le:,}"
    yield from (str(each) for each in info.metadata if isinstance(each, Duration))
    lengths = [each for each in info.metadata if isinstance(each, MinLen | MaxLen)]
    if lengths:
        yield " - ".join(f"{each.min_length if isinstance(each, MinLen) else each.max_length:,}" for each in lengths)
        yield "characters"


def meaning(key: str, info: FieldInfo) -> str:
    _, _, rule = key.partition("validation.")
    if rule.endswith("_length"):
        kind, field, _ = rule.split(".")
        least = "Fewest" if rule.endswith("min_length") else "Most"
        return f"{least} characters of a {kind}'s {field}."
    return info.description or ""


if __name__ == "__main__":
    sys.exit(main())
