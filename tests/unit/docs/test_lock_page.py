"""The page on locks shows a definition that can be stored, and names that it gives."""

from pathlib import Path

from support.pages import DOCS, blocks
from support.play import payload

from sagad_client import load_definitions
from sagad_server.domain.definition import compile_definition
from sagad_server.domain.locks import lock_names
from sagad_server.domain.validation import ValidationLimits, definition_violations

PAGE = DOCS / "how-to" / "lock-resources.md"


def test_the_definition_that_is_shown_can_be_stored_and_names_its_locks(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(PAGE) if block.language == "yaml")
    file = tmp_path / "refund.yaml"
    file.write_text(block.text)
    (definition,) = load_definitions(file)
    assert definition_violations(definition, ValidationLimits(), participants={"inventory"}) == []
    names = lock_names(compile_definition(definition), payload({"order_id": "7", "customer": "bob"}))
    assert names == ("customer/bob", "order/7")
