"""The page on errors has every reason that a caller can meet, and no other."""

import ast
from collections.abc import Iterator

from support.pages import DOCS, ROOT, table

from sagad_server.api.errors import refusal
from sagad_server.domain import errors
from sagad_server.domain.errors import SagadError

PAGE = DOCS / "reference" / "errors.md"
MODULES = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "server" / "sagad_server").rglob("*.py")]
CLASSES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, SagadError)}


def calls(module: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """The calls in a module by the name of what is called; `InvalidArgument.of` counts as InvalidArgument."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr == "of":
                called = called.value
            yield called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""), node


def reasons(call: ast.Call, module: ast.Module) -> list[str | None]:
    """The reasons that a call may give; None stands for that of the class."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    if given and isinstance(given[0], ast.Name):  # what is assigned to that name
        assigned = [node for node in ast.walk(module) if isinstance(node, ast.Assign)]
        given = [node.value for node in assigned if ast.unparse(node.targets[0]) == given[0].id]
    found = [
        node.value
        for value in given
        for node in ast.walk(value)
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str))
    ]
    assert found or not given, ast.unparse(call)
    return found or [None]


def raised() -> set[tuple[str, str]]:
    """(code, reason) of every error that the server makes."""
    found = set()
    for module in MODULES:
        for name, call in calls(module):
            if name in CLASSES:
                for error in (CLASSES[name]("", reason=reason) for reason in reasons(call, module)):
                    found.add((refusal(error).code.name, error.reason))
    return found


def test_every_reason_of_a_refused_call_is_in_the_table_and_no_other() -> None:
    rows = table(PAGE, "Reasons of refused calls")
    listed = [(code, reason.strip("`")) for code, reason, *_ in rows]
    assert len(set(listed)) == len(listed)
    assert set(listed) == raised()


def test_every_reason_says_what_helps() -> None:
    for row in table(PAGE, "Reasons of refused calls"):
        assert len(row) == 4, row
        assert all(row), row


def test_every_reason_that_sagad_gives_a_failure_is_in_the_table_and_no_other() -> None:
    made = {
        ast.literal_eval(call.args[1])
        for module in MODULES
        for name, call in calls(module)
        if name == "Failure" and len(call.args) > 1 and isinstance(call.args[1], ast.Constant)
    }
    listed = {reason.strip("`") for reason, *_ in table(PAGE, "Reasons of failures")}
    assert listed == made | {"REFUSED"}  # what stands for the reason that a participant has not given
