"""Table E.1-1: one pinned edition, whole, and stricter than any allow-list."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import keyword_for_tag

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header import table
from prichexy_worker.header.allowlist import (
    Empty,
    Items,
    Pseudonym,
    Rule,
    Uid,
    allow_lists,
    parse_attributes,
)


def concrete_rows() -> list[tuple[int, str]]:
    rows = table.table().items()
    return [(int(key[1:5] + key[6:10], 16), value) for key, value in rows if "x" not in key]


def test_the_table_is_the_pinned_edition_byte_for_byte() -> None:
    content = resources.files("prichexy_worker.header").joinpath("basic_profile.yaml").read_bytes()
    assert hashlib.sha256(content).hexdigest() == table.TABLE_SHA256
    assert f"edition: {table.TABLE_EDITION}\n".encode() in content
    assert b"Copyright 2020, Kitware Europe" in content, "its licence asks for the notice"


def test_a_changed_table_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "TABLE_SHA256", "0" * 64)
    with pytest.raises(Misconfigured, match="reinstall"):
        table.table.__wrapped__()


def test_the_table_is_whole() -> None:
    assert len(table.table()) == 655
    assert set(table.table().values()) == table.ACTIONS


@pytest.mark.parametrize(
    ("tag", "action"),
    [
        (0x00100010, "Z"),  # PatientName
        (0x00100020, "Z/D"),  # PatientID
        (0x00101010, "X"),  # PatientAge
        (0x0020000D, "U"),  # StudyInstanceUID
        (0x00082112, "X/Z/U*"),  # SourceImageSequence
        (0x04000561, "X"),  # OriginalAttributesSequence
        (0xFFFAFFFA, "X"),  # DigitalSignaturesSequence
        (0x00880200, "X"),  # IconImageSequence
        (0x60003000, "X"),  # OverlayData
        (0x601E4000, "X"),  # OverlayComments of another plane
        (0x60000022, "X"),  # OverlayDescription
        (0x50042500, "X"),  # CurveLabel
        (0x00091001, "X"),  # private
        (0x00280010, None),  # Rows
    ],
)
def test_the_actions_are_the_standards(tag: int, action: str | None) -> None:
    assert table.action(tag) == action


def flat(rules: tuple[Rule, ...]) -> list[Rule]:
    found = []
    for rule in rules:
        found.append(rule)
        if isinstance(rule.keep, Items):
            found += flat(rule.keep.rules)
    return found


def listed(rules: tuple[Rule, ...]) -> list[Rule]:
    return [rule for rule in flat(rules) if table.action(rule.tag) is not None]


def assert_not_weaker(rule: Rule) -> None:
    action = table.action(rule.tag)
    assert action is not None
    match rule.keep:
        case Empty():
            assert "Z" in action
        case Pseudonym():
            assert "D" in action or "Z" in action
        case Uid():
            assert action == "U"
        case Items(rules):
            assert action == "X/Z/U*"
            for uid in (one for one in rules if one.vr == "UI" and table.action(one.tag)):
                assert isinstance(uid.keep, Uid)
        case other:
            pytest.fail(f"{rule.keyword} is kept as {other} under {action}")


def test_no_allow_list_weakens_the_table() -> None:
    assert len(allow_lists()) == 4
    for rules in allow_lists().values():
        assert listed(rules)
        for rule in listed(rules):
            assert_not_weaker(rule)


KINDS: list[Any] = [
    "uid",
    "sop_class",
    "pseudonym",
    "empty",
    "emptied",
    "voi_tables",
    {"fixed": "text"},
    {"values": ["CHEST"], "required": "CHEST", "otherwise": "CHEST"},
    {"each_of": ["CHEST"]},
    {"pattern": ".*", "otherwise": "X"},
    {"range": [0, 9]},
    {"codes": "view"},
    {"items": {"PatientName": {"pattern": ".*"}}},
]


@given(st.sampled_from(concrete_rows()), st.sampled_from(KINDS))
def test_whatever_a_list_asks_for_the_tables_action_is_what_happens(
    row: tuple[int, str], kind: Any
) -> None:
    tag, action = row
    keyword = keyword_for_tag(tag)
    if not keyword:
        return  # the installed dictionary does not know it: it cannot be listed at all
    rules = parse_attributes({keyword: kind})
    if "D" not in action and "Z" not in action and "U" not in action:
        assert rules == ()
    for rule in rules:
        if action == "D" and not isinstance(rule.keep, Pseudonym):
            assert kind == {"fixed": "text"}
        else:
            assert_not_weaker(rule)
        if rule.keep != Pseudonym() and action != "D":
            assert rule.otherwise is None
            assert rule.required in (None, "")
