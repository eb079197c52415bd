"""Where a configuration comes from: a YAML file and the environment. What each key's source was is kept for errors."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

ENV_PREFIX = "SAGAD_"
ENV_FILE = "SAGAD_CONFIG"
Tree = dict[str, Any]


class SourceError(Exception):
    """A source cannot be read. The message says which, and where in it."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_file(path: Path) -> Tree:
    """The sections in a YAML file; an empty section, or file, holds nothing. Raises SourceError."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:  # its own text quotes the line, which may hold a password
        mark = error.problem_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise SourceError(f"{path}:{where} is no valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SourceError(f"{path}: is no text, and so no valid YAML") from None
    if tree is not None and not isinstance(tree, dict):
        raise SourceError(f"{path}: must hold sections, such as 'postgres:'")
    return {section: {} if keys is None else keys for section, keys in (tree or {}).items()}


def read_environment(environment: Mapping[str, str]) -> Tree:
    """SAGAD_POSTGRES__DSN=x as {"postgres": {"dsn": "x"}}. Raises SourceError where a section is given a value."""
    tree: Tree = {}
    for name, value in sorted(environment.items()):
        if not name.startswith(ENV_PREFIX) or name == ENV_FILE:
            continue
        *sections, key = name.removeprefix(ENV_PREFIX).lower().split("__")
        node: Any = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise SourceError(f"{name}: {section} is given a value of its own by another variable")
        node[key] = value
    return tree


def variable(path: tuple[str, ...]) -> str:
    """The environment variable of a key."""
    return ENV_PREFIX + "__".join(path).upper()


def merge(lower: Tree, upper: Tree) -> Tree:
    """Both, key by key; what `upper` says wins."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def leaves(tree: Tree, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The values by their path."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        below = (*path, str(key))
        found.update(leaves(value, below) if isinstance(value, dict) and value else {below: value})
    return found
