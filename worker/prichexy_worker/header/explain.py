"""What becomes of each attribute of an object, and by which rule and row of the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset

from prichexy_worker.contract import ModelInfo, Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.header import elements, table
from prichexy_worker.header.allowlist import (
    AccessionNumber,
    Age,
    Codes,
    EachOf,
    Empty,
    Fixed,
    Items,
    KeptUid,
    LookupTables,
    Pattern,
    Pseudonym,
    Range,
    Rule,
    ShiftedDate,
    SopClass,
    Text,
    Uid,
    Values,
    Words,
)
from prichexy_worker.header.engine import deidentify, person_of
from prichexy_worker.header.keeping import Person, keep_attributes
from prichexy_worker.header.marks import Provenance
from prichexy_worker.header.profile import BASIC, Profile
from prichexy_worker.pseudonyms import Pseudonyms

__all__ = ["Explanation", "explain"]

_SOP_CLASS_UID: Final = 0x00080016
_PIXEL_DATA: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_BULK: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NUMERIC: Final = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "UL", "US"})
_LONGEST: Final = 64
#: Stands for the model that will deform the image: the header names it, and no rule depends on it.
_ANY_MODEL: Final = ModelInfo("", "", "0" * 64, "untrained", "")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of one attribute.

    ``place`` is its tag, below those of the sequences it is in: "(0040,0275)/(0008,0050)".
    ``fate`` is one of kept, changed, cleaned, moved, replaced, emptied, removed, written.
    ``table`` is the action of Table E.1-1, with the option that decides instead of it.
    ``before`` and ``after`` are the values: never to be shown unless somebody asks for them.
    """

    place: str
    keyword: str
    vr: str
    fate: str
    why: str
    table: str
    before: str
    after: str


def explain(
    dataset: Dataset, pseudonyms: Pseudonyms, profile: Profile = BASIC
) -> tuple[Explanation, ...]:
    """Give what would become of each attribute of ``dataset``, which is not altered, in order.

    Those inside sequences follow their sequence; what the gateway writes itself comes last. The
    file's preamble and file meta information are written anew and are not listed. Raises Rejected
    where the whole object would be turned away by its header, as ``deidentify`` does.
    """
    provenance = Provenance("", _ANY_MODEL, pseudonyms.key_id, deformed=True)
    result = deidentify(dataset, pseudonyms, provenance, profile)
    rules = profile.lists["".join(elements.texts(dataset, _SOP_CLASS_UID))]
    look = _Look(person_of(dataset, pseudonyms), profile)
    found = list(look.attributes(dataset, rules, keep_attributes(dataset, rules, look.person), ""))
    told = {one.place for one in found}
    for element in result:
        place = elements.name(element.tag)
        if place not in told:
            keyword = keyword_for_tag(element.tag)
            why = "says what was done, or is required"
            found.append(
                Explanation(
                    place, keyword, str(element.VR), "written", why, look.row(element.tag), "", ""
                )
            )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Look:
    """Whom the object is about, and what the project asks for."""

    person: Person
    profile: Profile

    def row(self, tag: int) -> str:
        """Give what Table E.1-1 says of an attribute: "X", "Z, modified-dates: C" or ""."""
        action = table.action(tag)
        if action is None:
            return ""
        options = [
            f"{option.value}: {code}"
            for option in sorted(self.profile.options)
            if (code := table.under_options(tag, [option]))
        ]
        return ", ".join([action, *options])

    def attributes(
        self, source: Dataset, rules: tuple[Rule, ...], kept: Dataset, above: str
    ) -> Iterator[Explanation]:
        """Explain each attribute of a dataset or item, and those inside it."""
        by_tag: Mapping[int, Rule] = {rule.tag: rule for rule in rules}
        for tag in sorted(int(tag) for tag in source.keys()):  # noqa: SIM118
            rule = by_tag.get(tag)
            place = above + elements.name(tag)
            if tag in _PIXEL_DATA and not above:
                yield self._told(source, tag, place, "changed", "the pixels are deformed", "")
                continue
            fate, why = _fate(source, tag, rule, kept)
            after = _shown(kept, tag)
            yield self._told(source, tag, place, fate, why, after)
            inner = rule.keep.rules if rule and isinstance(rule.keep, Items) else ()
            for item in _items(source, tag):
                inside = keep_attributes(item, inner, self.person)
                yield from self.attributes(item, inner, inside, f"{place}/")

    def _told(
        self, source: Dataset, tag: int, place: str, fate: str, why: str, after: str
    ) -> Explanation:
        element = source.get_item(tag, keep_deferred=True)
        try:
            known = dictionary_VR(tag)
        except KeyError:
            known = "UN"
        return Explanation(
            place=place,
            keyword=keyword_for_tag(tag) or ("private" if tag >> 16 & 1 else "unknown"),
            vr=str(element.VR or known),
            fate=fate,
            why=why,
            table=self.row(tag),
            before=_shown(source, tag),
            after=after,
        )


def _fate(source: Dataset, tag: int, rule: Rule | None, kept: Dataset) -> tuple[str, str]:
    if rule is None:
        return "removed", "on no allow-list"
    what = _rule_in_words(rule)
    if tag not in kept:
        return "removed", f"its value is not of what may be kept: {what}"
    if kept[tag].is_empty:
        return "emptied", what if isinstance(rule.keep, Empty) else f"may only be kept as {what}"
    match rule.keep:
        case Pseudonym() | AccessionNumber() | Uid() | Fixed():
            return "replaced", what
        case Words():
            return "cleaned", what
        case ShiftedDate():
            return "moved", what
        case Codes():
            return "cleaned", what
        case _:
            same = rule.vr == "SQ" or _values(source, tag) == _values(kept, tag)
            return ("kept" if same else "changed"), what


def _rule_in_words(rule: Rule) -> str:
    match rule.keep:
        case Empty():
            return "there and empty"
        case Pseudonym():
            return "the patient's pseudonym"
        case AccessionNumber():
            return "the accession number's pseudonym"
        case Uid():
            return "the UID's pseudonym"
        case Fixed(text):
            return f'always "{text}"'
        case KeptUid() | Text():
            return "as it is"
        case Age():
            return "an age, from 90 years on 090Y"
        case Words():
            return "words of a vocabulary"
        case ShiftedDate():
            return "a date, earlier by the patient's own number of days"
        case SopClass():
            return "a SOP Class of the standard"
        case Values(values) | EachOf(values):
            return f"one of {len(values)} terms" if len(values) > 1 else f"{next(iter(values))}"
        case Pattern(pattern):
            return f"values that match {pattern.pattern}"
        case Range(low, high):
            return f"numbers from {low} to {high}"
        case Codes():
            return "codes of a vocabulary"
        case Items():
            return "items by an allow-list of their own"
        case LookupTables():
            return "lookup tables that are what they say"


def _items(source: Dataset, tag: int) -> tuple[Dataset, ...]:
    try:
        return elements.items(source, tag) if _is_known(tag) else ()
    except Rejected as error:
        if error.reason is not Reason.UNREADABLE:
            raise
        return ()


def _is_known(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _values(dataset: Dataset, tag: int) -> tuple[str | float, ...]:
    if set(dictionary_VR(tag).split(" or ")) & _NUMERIC:
        return elements.numbers(dataset, tag) or ()
    return elements.texts(dataset, tag)


def _shown(dataset: Dataset, tag: int) -> str:
    if tag not in dataset or not keyword_for_tag(tag):
        return ""
    vrs = set(dictionary_VR(tag).split(" or "))
    if "SQ" in vrs or vrs & _BULK:
        return ""
    text = "\\".join(str(value) for value in _values(dataset, tag))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
