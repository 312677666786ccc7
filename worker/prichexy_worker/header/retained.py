"""What the last gate may find in a result, because an option of the profile keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom.dataset import Dataset

from prichexy_worker.header import elements, table
from prichexy_worker.header.allowlist import (
    Age,
    Items,
    KeptUid,
    Range,
    Rule,
    ShiftedDate,
    Text,
    Values,
    Words,
)
from prichexy_worker.header.profile import Profile
from prichexy_worker.release import Allowed

__all__ = ["allowed"]

_SOP_CLASS_UID: Final = 0x00080016
#: What keeps a value as it came.
_AS_IT_CAME: Final = (Age, KeptUid, Range, Text, Values)


def allowed(source: Dataset, result: Dataset, profile: Profile) -> Allowed:
    """Give what ``profile`` lets pass of ``source`` into ``result``.

    Kept is what a chosen option keeps unmodified, by Table E.1-1, and by a rule that does so.
    Cleaned are dates that the source does not have in that attribute, and text of nothing but words
    of the option's vocabulary.
    """
    rules = profile.lists.get("".join(elements.texts(source, _SOP_CLASS_UID)), ())
    return Allowed(
        kept=frozenset(_kept(rules, "", profile)),
        cleaned=frozenset(
            (rule.tag, value)
            for rule in rules
            for value in elements.texts(result, rule.tag)
            if _is_clean(rule, value, source)
        ),
    )


def _kept(rules: tuple[Rule, ...], above: str, profile: Profile) -> Iterator[str]:
    for rule in rules:
        place = f"{above}{rule.tag >> 16:04X},{rule.tag & 0xFFFF:04X}"
        by_option = table.under_options(rule.tag, profile.options) == "K"
        if isinstance(rule.keep, Items) and by_option:
            yield from _kept(rule.keep.rules, f"{place}/", profile)
        elif isinstance(rule.keep, Text | KeptUid) or (
            by_option and isinstance(rule.keep, _AS_IT_CAME)
        ):
            yield place


def _is_clean(rule: Rule, value: str, source: Dataset) -> bool:
    match rule.keep:
        case Words(vocabulary):
            return set(value.split(" ")) <= vocabulary
        case ShiftedDate():
            return not any(one[:8] == value for one in elements.texts(source, rule.tag))
        case _:
            return False
