#!/usr/bin/env python3
"""Generates Python from every .proto file; with --check it changes nothing and fails where the committed code differs.

Run it with the interpreter of .venv-dev, which has buf and the plugins beside it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("proto", "bench")
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(out: Path) -> None:
    """Writes the code of all .proto files below `out`, in the folders of the repository."""
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
    contract = [binaries / "buf", "generate", "--output", out]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{out}" for kind in ("mypy", "mypy_grpc")]
    floor = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.", *outputs, "bench/floor.proto"]
    for command in (contract, floor):
        subprocess.run(command, check=True, cwd=ROOT, env=environment)


def generated(root: Path) -> dict[str, bytes]:
    files = (path for folder in FOLDERS for path in (root / folder).rglob("*"))
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.name.endswith(SUFFIXES)}


def check() -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        wanted, committed = generated(Path(folder)), generated(ROOT)
    names = sorted(wanted.keys() | committed.keys())
    if stale := [name for name in names if wanted.get(name) != committed.get(name)]:
        sys.exit("These differ from what `make generate` writes:\n  " + "\n  ".join(stale))


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        check()
    elif not sys.argv[1:]:
        generate(ROOT)
    else:
        sys.exit("usage: generate.py [--check]")
