"""What the last gate may find in a result, because an option of the profile keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom.dataset import Dataset

from prichexy_worker.header import elements, table
from prichexy_worker.header.allowlist import Rule, ShiftedDate, Text, Words
from prichexy_worker.header.profile import Profile

__all__ = ["meant_to_stay", "retained_tags"]

_SOP_CLASS_UID: Final = 0x00080016


def retained_tags(source: Dataset, profile: Profile) -> frozenset[int]:
    """Give the attributes of ``source`` whose own values may be in its result.

    Those that a chosen option keeps unmodified, by Table E.1-1, and the device's names under
    Retain Device Identity. A value of theirs says nothing of the patient by the profile's choice;
    it is still sought wherever another attribute of the source holds it as an identifier.
    """
    return frozenset(
        rule.tag
        for rule in _rules(source, profile)
        if table.under_options(rule.tag, profile.options) == "K" or isinstance(rule.keep, Text)
    )


def meant_to_stay(source: Dataset, result: Dataset, profile: Profile) -> frozenset[str]:
    """Give the whole values of ``result`` that an option cleaned, and that are clean.

    A date that the source does not have in that attribute, and text of nothing but words of the
    option's vocabulary. A moved date may by chance be another date of the source, and a cleaned
    description may be the source's own.
    """
    return frozenset(
        value
        for rule in _rules(source, profile)
        for value in elements.texts(result, rule.tag)
        if _is_clean(rule, value, source)
    )


def _is_clean(rule: Rule, value: str, source: Dataset) -> bool:
    match rule.keep:
        case Words(vocabulary):
            return set(value.split(" ")) <= vocabulary
        case ShiftedDate():
            return not any(one[:8] == value for one in elements.texts(source, rule.tag))
        case _:
            return False


def _rules(source: Dataset, profile: Profile) -> Iterator[Rule]:
    yield from profile.lists.get("".join(elements.texts(source, _SOP_CLASS_UID)), ())
