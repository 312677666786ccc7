"""The pages that benchmarks write: each section is there, filled, and replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from prichexy_testing.sections import replace_section, table
from prichexy_testing.shared_data import REPO

SCORE = REPO / "docs" / "deidentification-score.md"
CAPACITY = REPO / "docs" / "capacity.md"


@pytest.mark.parametrize(
    ("page", "section"),
    [
        *((SCORE, section) for section in ("score", "side-by-side", "fuzz")),
        *((CAPACITY, section) for section in ("worker", "ledger", "broker")),
    ],
)
def test_every_section_of_a_page_holds_what_was_measured(page: Path, section: str) -> None:
    _, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {section} -->")
    assert rest.partition(f"<!-- /{section} -->")[0].count("|") > 10


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nafter\n")
    for text in ("first", "second"):
        replace_section(page, "one", text)
    assert page.read_text() == "before\n<!-- one -->\n\nsecond\n\n<!-- /one -->\nafter\n"
    with pytest.raises(ValueError, match="no section two"):
        replace_section(page, "two", "text")


def test_a_table_is_markdown() -> None:
    assert table(["", "files"], [("all", 3)]) == "|  | files |\n| --- | ---: |\n| all | 3 |"
