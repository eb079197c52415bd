"""SQL lives in files: each statement follows a line `-- name: ...`, and comments say what it is for."""

from importlib.resources import files

NAME = "-- name: "


def load_queries(file: str) -> dict[str, str]:
    """The statements of `queries/<file>.sql` by name, without comments."""
    text = (files(__package__) / "queries" / f"{file}.sql").read_text(encoding="utf-8")
    queries: dict[str, list[str]] = {}
    lines: list[str] = []  # those before the first name belong to nobody
    for line in text.splitlines():
        if line.startswith(NAME):
            lines = queries.setdefault(line.removeprefix(NAME), [])
        elif not line.startswith("--"):
            lines.append(line)
    return {name: "\n".join(statement).strip() for name, statement in queries.items()}
