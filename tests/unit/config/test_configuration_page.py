"""The page on configuration says what the code does, and loses no key of the configuration that sagad replaces."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sagad_server.config import keys, load_config

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "configuration.md"

OLD_CONFIGURATION = """
server: {port: , read_timeout: , write_timeout: , idle_timeout: }
database:
  mysql: {host: , port: , username: , password: , database: , max_idle_conns: , max_open_conns: , conn_max_lifetime: }
  mongodb: {uri: , database: , max_pool_size: , min_pool_size: , max_idle_time: }
kafka: {brokers: , group_id: , topic: , consumer_timeout: , producer_timeout: }
saga:
  name:
  version:
  description:
  max_sagas:
  max_steps:
  cleanup_interval:
  validation_enabled:
  caching_enabled:
  monitoring_enabled:
  auditing_enabled:
  retry_enabled:
  compensation_enabled:
  supported_saga_types:
  supported_step_types:
  validation_rules:
    saga:
      id: &text {required: , min_length: , max_length: }
      name: *text
      description: *text
      version: {required: , format: }
    step:
      id: *text
      name: *text
      description: *text
      action: *text
      compensation: *text
      max_retries: &range {required: , min: , max: }
      timeout: *range
  metadata: {environment: , region: , team: , project: }
"""


def paths(tree: dict[str, object], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, below in tree.items():
        found |= paths(below, f"{prefix}{key}.") if isinstance(below, dict) else {prefix + key}
    return found


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the first table after the heading, by the key in the first column."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines is not None
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[0].splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells[2:]}


def test_the_table_of_keys_is_that_of_the_code() -> None:
    check = [sys.executable, ROOT / "tools" / "config_reference.py", "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    table = rows("Keys")
    assert set(table) == {key for key, _ in keys()}
    assert all(meaning for _, _, meaning in table.values()), "every key says what it means"


def test_every_old_key_has_a_successor_or_a_reason_why_not() -> None:
    table = rows("Where the keys of the old configuration went")
    assert set(table) == paths(yaml.safe_load(OLD_CONFIGURATION))
    known = {key for key, _ in keys()}
    for old, (successor, remark) in table.items():
        if successor == "-":
            assert remark, old
        else:
            assert successor.strip("`") in known, old


def test_every_old_bound_is_still_the_default() -> None:
    defaults = {key: info.default for key, info in keys()}
    old = {"max_sagas": 1000, "max_steps": 10_000, "cleanup_interval": 3600}
    rules = {
        f"step.{field}.{bound}": value for field in ("id", "name", "action", "compensation") for bound, value in LENGTH
    }
    rules |= {f"saga.{field}.{bound}": value for field in ("id", "name") for bound, value in LENGTH}
    rules |= {f"{kind}.description.{bound}": value for kind in ("saga", "step") for bound, value in LONG}
    rules |= {"step.max_retries.min": 0, "step.max_retries.max": 10, "step.timeout.min": 1, "step.timeout.max": 3600}
    old |= {f"validation_rules.{rule}": value for rule, value in rules.items()}
    table = rows("Where the keys of the old configuration went")
    for key, value in old.items():
        assert defaults[table[f"saga.{key}"][0].strip("`")] == value, key


LENGTH = (("min_length", 2), ("max_length", 100))
LONG = (("min_length", 10), ("max_length", 500))


def test_the_example_is_a_valid_file(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    file = tmp_path / "sagad.yaml"
    file.write_text(example[1])
    config = load_config(file, {})
    assert config.participants["payment"].step_timeout == pytest.approx(10)
