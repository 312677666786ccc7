"""What the attacker looks at: compared on the same pairs, said in words, beside the ladder."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from prichexy_testing.made_up_runs import CORRECTED, FLOOR, REAL, STRONG, MadeUp
from prichexy_train.attacks.shortcut_checks import SHORTCUT_CHECKS
from prichexy_train.records import RungOf
from prichexy_train.report.evidence import gather
from prichexy_train.report.page import compose, write_page
from prichexy_train.report.results import Section, sections
from prichexy_train.report.shortcuts import shortcuts_findings, shortcuts_table
from prichexy_train.report.tables import Table

DETAILS: dict[str, JsonValue] = {
    "verifiers": ["verifier", "verifier-b"],
    "corner": {"made-up": 0.2},
    "strip": {"made-up": 0.1},
    "border": {"made-up": 0.1},
    "aspect": {"made-up": 0.8192},
    "stretch": {"made-up": 1.25},
    "centre": {"made-up": 0.6},
}


def check(made_up: MadeUp, name: str, separation: float, pair_list: str = "test") -> None:
    rung = RungOf(number=0, name=f"shortcut-{name}", role="shortcut")
    made_up.attack(REAL, rung, separation, seeds=(1,), pair_list=pair_list, details=DETAILS)


def section_of(made_up: MadeUp) -> Section:
    (section,) = sections(gather(made_up.folder))
    return section


def table_of(made_up: MadeUp) -> Table:
    table = shortcuts_table(section_of(made_up))
    assert table is not None
    return table


@pytest.fixture
def checked(made_up: MadeUp) -> MadeUp:
    made_up.attack(REAL, STRONG, 1.5)
    made_up.attack(REAL, FLOOR, 0.3, seeds=(1,))
    for pair_list in ("test", "test_matched"):
        check(made_up, "unchanged", 2.0, pair_list)
        check(made_up, "border-alone", 0.2, pair_list)
        check(made_up, "one-histogram", 2.0, pair_list)
    return made_up


def test_every_check_has_a_row_and_a_sentence_on_how_to_read_it(made_up: MadeUp) -> None:
    for one in SHORTCUT_CHECKS:
        check(made_up, one.seen, 1.0)
    table = table_of(made_up)
    assert len(table.rows) == len(SHORTCUT_CHECKS)
    assert all(cells[-1].text.endswith(".") for _, cells in table.rows)
    heads = " ".join(name for name, _ in table.rows)
    for part in ("20 % of the side", "upper strip of 10 %", "0.8192", "1.25", "60 %"):
        assert part in heads
    assert "(verifier and verifier-b)" in table.caption


def test_a_change_is_over_the_same_pairs_and_marked_when_it_is_beyond_chance(
    checked: MadeUp,
) -> None:
    rows = dict(table_of(checked).rows)
    unchanged = rows["Images as they are"]
    border = next(cells for name, cells in rows.items() if name.startswith("Border alone"))
    alike = rows["One histogram for all"]
    assert unchanged[1].text == "–"
    assert border[1].text.startswith("−")
    assert border[1].strong
    assert (alike[1].text, alike[1].note) == ("0.0", "[0.0, 0.0]")
    assert not alike[1].strong
    assert float(unchanged[0].text) > float(border[0].text)


def test_what_no_image_tells_stands_below(checked: MadeUp) -> None:
    name, cells = table_of(checked).rows[-1]
    assert name == "No image: metadata alone"
    assert cells[2].text == "–", "the floor was not looked at on the other list"


def test_each_list_has_a_sentence_with_what_costs_something_for_certain(checked: MadeUp) -> None:
    for sentence in shortcuts_findings(section_of(checked)):
        assert "border alone" in sentence
        assert "histogram" not in sentence


def test_where_nothing_costs_anything_it_says_so(made_up: MadeUp) -> None:
    check(made_up, "unchanged", 2.0)
    check(made_up, "one-histogram", 2.0)
    (sentence,) = shortcuts_findings(section_of(made_up))
    assert "no change lowers" in sentence


def test_checks_are_no_attacks(checked: MadeUp, tmp_path: str) -> None:
    checked.attack(CORRECTED, STRONG, 1.0)
    section = section_of(checked)
    assert section.real is not None
    assert section.real.strongest["test"].rung == STRONG.name
    assert {one.rung for one in section.real.attacks["test"]} == {STRONG.name, FLOOR.name}
    html, markdown = write_page(compose(gather(checked.folder), "Checked"), tmp_path)
    for file in (html, markdown):
        assert "What the attacker looks at" in file.read_text(encoding="utf-8")


def test_no_checks_are_no_table(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.5)
    section = section_of(made_up)
    assert shortcuts_table(section) is None
    assert shortcuts_findings(section) == ()
