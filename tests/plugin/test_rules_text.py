"""Intake rules as a text, for a person who reads and alters them."""

from __future__ import annotations

from prichexy_plugin.intake import Rule
from prichexy_plugin.rules_text import read_rules, rules_text


def test_no_name_turns_the_text_round_and_all_of_it_is_read_as_it_was() -> None:
    names = ("Brust 山田", "a\u202eb", "\u05d0\u05d1", "x\u2066\U000e0001y")
    rules = tuple(Rule(name, modality=frozenset({"DX"})) for name in names)
    text = rules_text(rules)
    assert "Brust 山田" in text
    for one in ("\u202e", "\u05d0", "\u2066", "\U000e0001"):
        assert one not in text
    assert read_rules(text, "") == rules
