"""Time, chance and I/O come from outside, or nothing could be simulated."""

import ast
from pathlib import Path

import pytest

import sagad_server

ROOT = Path(sagad_server.__file__).parent
MODULES = sorted([*(ROOT / "domain").glob("*.py"), *(ROOT / "engine").glob("*.py")])
FORBIDDEN_IMPORTS = {
    "time",
    "random",
    "socket",
    "threading",
    "asyncpg",
    "grpc",
    "os",
    "secrets",
    "uuid_utils",
    "datetime",
}
FORBIDDEN_CALLS = {"sleep", "timeout", "wait_for", "call_later", "call_at", "now", "utcnow", "uuid4", "time"}
INJECTED = ("self.clock", "self._clock", "self._engine.clock", "clock")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_domain_and_engine_read_no_clock_no_chance_and_no_socket(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]}
            if node.module == "datetime":
                names = {"a type"} if {alias.name for alias in node.names} <= {"datetime", "timedelta"} else names
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_CALLS:
            owner = ast.unparse(node.func.value)
            assert owner.endswith(INJECTED), f"{path.name}:{node.lineno} calls {owner}.{node.func.attr}"
            continue
        else:
            continue
        if path.parent.name == "domain":
            assert "asyncio" not in names
        assert not names & FORBIDDEN_IMPORTS, f"{path.name}:{node.lineno} imports {names & FORBIDDEN_IMPORTS}"


def test_there_is_something_to_hold() -> None:
    assert len(MODULES) > 20
