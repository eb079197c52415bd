"""The page on exploring failures has every warning about a definition, and no other."""

from support.pages import DOCS, table

from sagad_server.domain.lint import WarningCode

PAGE = DOCS / "how-to" / "explore-failures.md"


def test_every_warning_is_on_the_page_with_what_to_do_and_no_other() -> None:
    rows = table(PAGE, "Look for dangers")
    assert [code.strip("`") for code, *_ in rows] == list(WarningCode)
    for row in rows:
        assert len(row) == 3, row
        assert all(row), row
