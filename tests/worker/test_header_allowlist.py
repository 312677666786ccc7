"""Allow-lists: strict to read, and nothing on them that could carry a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header.allowlist import (
    Codes,
    Empty,
    Fixed,
    Items,
    LookupTables,
    Pattern,
    Pseudonym,
    Range,
    Rule,
    Values,
    allow_lists,
    parse_attributes,
)

CR, DX, DX_PROCESSING, SC = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.7",
)


def every_rule(rules: tuple[Rule, ...] | None = None) -> Iterator[Rule]:
    for one in [rules] if rules is not None else allow_lists().values():
        for rule in one:
            yield rule
            if isinstance(rule.keep, Items):
                yield from every_rule(rule.keep.rules)
            if isinstance(rule.keep, Codes):
                yield from every_rule(rule.keep.modifiers)


def test_there_is_a_list_for_each_supported_sop_class_and_no_other() -> None:
    assert set(allow_lists()) == {CR, DX, DX_PROCESSING, SC}


def test_no_free_text_date_or_name_is_on_a_list_but_as_empty_pseudonym_or_closed_text() -> None:
    free = {"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UN", "UR", "UT"}
    for rule in every_rule():
        if rule.vr in free:
            assert isinstance(rule.keep, Empty | Pseudonym | Fixed | Values), rule.keyword


def test_no_private_overlay_curve_or_pixel_element_is_on_a_list() -> None:
    for rule in every_rule():
        group = rule.tag >> 16
        assert group % 2 == 0
        assert group >> 8 not in (0x50, 0x60, 0x7F)


def test_every_sequence_has_a_list_of_its_own() -> None:
    for rule in every_rule():
        if rule.vr == "SQ":
            assert isinstance(rule.keep, Empty | Codes | Items | LookupTables), rule.keyword


def test_no_list_of_patterns_takes_a_word() -> None:
    for rule in every_rule():
        if isinstance(rule.keep, Pattern):
            for word in ("SMITH", "19330417", "4711"):
                assert not rule.keep.pattern.fullmatch(word)


def test_no_range_reaches_to_a_date() -> None:
    for rule in every_rule():
        if isinstance(rule.keep, Range):
            assert -19000101 < rule.keep.low <= rule.keep.high < 19000101


def test_values_are_upper_case_as_they_are_compared() -> None:
    for rule in every_rule():
        if isinstance(rule.keep, Values):
            assert all(value == " ".join(value.upper().split()) for value in rule.keep.values)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("NoSuchKeyword", "empty"),
        ("KVP", "everything"),
        ("KVP", {"range": [0, 99999999]}),
        ("KVP", {"range": [9, 0]}),
        ("KVP", {"range": [0, 9], "items": {}}),
        ("KVP", {}),
        ("BurnedInAnnotation", {"values": [True]}),
        ("ViewCodeSequence", {"codes": "no_such_vocabulary"}),
        ("SourceImageSequence", {"items": {}, "needs": ["NoSuchKeyword"]}),
        ("PatientOrientation", {"pattern": "("}),
    ],
)
def test_a_list_that_is_not_understood_is_refused_by_the_name_of_the_attribute(
    keyword: str, value: Any
) -> None:
    with pytest.raises(Misconfigured, match=keyword):
        parse_attributes({keyword: value})


def test_codes_are_of_known_schemes_and_have_a_meaning() -> None:
    for rule in every_rule():
        if isinstance(rule.keep, Codes):
            assert rule.keep.vocabulary
            for (value, scheme), meaning in rule.keep.vocabulary.items():
                assert scheme in {"SCT", "SRT", "SNM3", "99SDM", "DCM", "NCIt"}
                assert value
                assert 0 < len(meaning) <= 64
