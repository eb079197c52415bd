"""The pages that are made from code say what the code says. `make check` holds the contract against its comments."""

import subprocess
import sys

import pytest
from google.protobuf.descriptor import Descriptor
from support.pages import DOCS, ROOT

from sagad.v1 import admin_service_pb2, definition_service_pb2, participant_service_pb2, saga_service_pb2

FILES = (admin_service_pb2, definition_service_pb2, participant_service_pb2, saga_service_pb2)


@pytest.mark.parametrize("tool", ["state_diagrams.py", "command_reference.py"])
def test_what_a_tool_has_made_is_what_it_would_make_now(tool: str) -> None:
    check = [sys.executable, ROOT / "tools" / tool, "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def messages() -> dict[str, Descriptor]:
    """Every message that a method takes or returns, and those within them."""
    waiting = [
        message
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        for message in (method.input_type, method.output_type)
    ]
    found: dict[str, Descriptor] = {}
    while waiting:
        message = waiting.pop()
        if message.full_name not in found and message.full_name.startswith("sagad."):
            found[message.full_name] = message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return {name: message for name, message in found.items() if not message.GetOptions().map_entry}


def test_the_contract_page_has_every_method_and_every_field() -> None:
    page = (DOCS / "reference" / "contract.md").read_text(encoding="utf-8")
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                assert f"\n### {service.name}.{method.name}\n" in page
    for message in messages().values():
        sections = [part for part in page.split("\n\n") if part.startswith("| field ")]
        assert not message.fields or any(
            all(f"| `{field.name}` |" in section for field in message.fields) for section in sections
        ), message.full_name
