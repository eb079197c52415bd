"""What the pages show can be used as it stands. README and tutorial are run as a whole, in tests/integration/docs."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from support.pages import PAGES, ROOT, blocks

from sagad_client.cli import app
from sagad_server.config import load_config
from sagad_server.domain.states import FailureCategory, ParkingReason, SagaState

SHELL = [(page, block) for page in PAGES for block in blocks(page) if block.language == "sh"]
SAGACTL = [
    pytest.param(line, id=f"{page.name}: {line[:60]}")
    for page, block in SHELL
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines()
    for line in re.findall(r"(?<!\w)sagactl .*", line)
]


@pytest.mark.parametrize("line", SAGACTL)
def test_sagactl_takes_every_line_that_a_page_shows(line: str) -> None:
    words = shlex.split(re.split(r" \| | && ", line)[0])[1:]
    _, meta, _ = app.meta.parse_args(words, exit_on_error=False, print_error=False)
    app.parse_args(meta.args, exit_on_error=False, print_error=False)


def test_every_configuration_that_a_page_shows_is_valid(tmp_path: Path) -> None:
    shown = [one for page in PAGES for one in blocks(page) if one.language == "yaml" and "postgres:" in one.text]
    assert len(shown) >= 2
    for number, block in enumerate(shown):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block.text)
        load_config(file, {})


def test_every_yaml_that_a_page_shows_can_be_read() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language != "yaml" or yaml.safe_load(block.text), page


def test_the_semantics_name_every_state_category_and_reason_for_parking() -> None:
    page = (ROOT / "docs" / "explanation" / "semantics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z_]+)`", page))
    states = {state.name for state in SagaState} | {category.name for category in FailureCategory}
    assert states - named == set()
    whole = {ParkingReason.PIVOT_OUTCOME_UNKNOWN.name, ParkingReason.INTERNAL.name, ParkingReason.NO_PROGRESS.name}
    assert whole - named == set()
