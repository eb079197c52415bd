import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("sagad_client", "cyclopts rich asyncpg sagad_server sagad_participant"),
        ("sagad_client.cli", "asyncpg pydantic uvloop pymongo sagad_server sagad_participant"),
    ],
)
def test_the_client_brings_nothing_but_the_base_install(module: str, forbidden: str) -> None:
    code = f"import sys, {module}; print(sorted(set({forbidden.split()}) & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
