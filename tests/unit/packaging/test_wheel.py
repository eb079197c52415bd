"""What users get when they install sagad."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [Path(path) for path in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_file_of_the_packages_is_in_the_wheel(wheel_files: set[str]) -> None:
    sources = {
        path.relative_to(ROOT / package.parent).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources - wheel_files == set()
    assert any(name.endswith(".sql") for name in sources)


@pytest.mark.parametrize("package", [path.name for path in PACKAGES])
def test_each_package_says_that_it_is_typed(wheel_files: set[str], package: str) -> None:
    assert f"{package}/py.typed" in wheel_files


def test_the_wheel_holds_nothing_but_the_packages(wheel_files: set[str]) -> None:
    folders = {name.split("/")[0] for name in wheel_files}
    assert folders == {path.name for path in PACKAGES} | {f"sagad-{PROJECT['project']['version']}.dist-info"}


def modules_of_extras() -> list[str]:
    """The top-level modules that only an extra installs."""
    requirements = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
    names = {_normalized(re.match(r"[\w.-]+", line)[0]) for line in requirements}  # type: ignore[index]
    installed = packages_distributions()
    return sorted(module for module, owners in installed.items() if names.issuperset(map(_normalized, owners)))


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


BLOCK_AND_IMPORT = """
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} belongs to an extra", name=name)
name, *blocked = sys.argv[1:]
sys.meta_path.insert(0, Blocker())
importlib.import_module(name)
"""


@pytest.mark.parametrize("module", ["sagad_client", "sagad_client.cli", "sagad_participant", "sagad.v1"])
def test_the_base_install_imports_without_the_extras(module: str) -> None:
    blocked = modules_of_extras()
    assert {"asyncpg", "uvloop", "grpc_health"} <= set(blocked)
    command = [sys.executable, "-c", BLOCK_AND_IMPORT, module, *blocked]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
