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
    found = list(look.object(dataset, rules, result))
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

    def object(
        self, source: Dataset, rules: tuple[Rule, ...], result: Dataset
    ) -> Iterator[Explanation]:
        """Explain each attribute of a whole object by what ``result``, its own, then holds."""
        kept = keep_attributes(source, rules, self.person)
        by_tag: Mapping[int, Rule] = {rule.tag: rule for rule in rules}
        for tag in _tags(source):
            place = elements.name(tag)
            if tag in _PIXEL_DATA:
                yield self._told(source, tag, place, "changed", "the pixels are deformed", "")
                continue
            rule = by_tag.get(tag)
            fate, why = _fate(source, tag, rule, kept)
            if tag in kept and tag not in result:
                fate, why = "removed", "says nothing without others that are not kept"
            elif tag in result and (tag not in kept or kept[tag] != result[tag]):
                fate = "emptied" if result[tag].is_empty else "written"
                why = "repeats an identifier" if result[tag].is_empty else "says what was done"
            yield self._told(source, tag, place, fate, why, _shown(result, tag))
            yield from self._inside(source, tag, rule, result, f"{place}/")

    def _inside(
        self, source: Dataset, tag: int, rule: Rule | None, result: Dataset, above: str
    ) -> Iterator[Explanation]:
        """Explain what the items of a sequence hold; nothing where it is none."""
        made = list(result[tag].value) if tag in result and result[tag].VR == "SQ" else []
        for item in _items(source, tag):
            if made and rule is not None and isinstance(rule.keep, Items):
                inner = keep_attributes(item, rule.keep.rules, self.person)
                if all(need in inner for need in rule.keep.needs):
                    yield from self._item(item, rule.keep.rules, inner, above)
                    continue
            like = next((one for one in made if _is_made_of(one, item)), None)
            yield from self._beside(item, Dataset() if like is None else like, above)

    def _item(
        self, source: Dataset, rules: tuple[Rule, ...], kept: Dataset, above: str
    ) -> Iterator[Explanation]:
        by_tag: Mapping[int, Rule] = {rule.tag: rule for rule in rules}
        for tag in _tags(source):
            place, rule = above + elements.name(tag), by_tag.get(tag)
            fate, why = _fate(source, tag, rule, kept)
            yield self._told(source, tag, place, fate, why, _shown(kept, tag))
            yield from self._inside(source, tag, rule, kept, f"{place}/")

    def _beside(self, source: Dataset, made: Dataset, above: str) -> Iterator[Explanation]:
        """Explain an item by what was made of it: a code, a lookup table, or nothing at all."""
        for tag in _tags(source):
            place = above + elements.name(tag)
            if tag not in made:
                yield self._told(source, tag, place, "removed", "goes with what holds it", "")
            else:
                same = _values(source, tag) == _values(made, tag) or made[tag].VR in _BULK
                fate = "kept" if same else "replaced"
                why = "part of a known code, or of a lookup table"
                yield self._told(source, tag, place, fate, why, _shown(made, tag))
            yield from self._inside(source, tag, None, made, f"{place}/")

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


def _tags(dataset: Dataset) -> list[int]:
    return sorted(int(tag) for tag in dataset.keys())  # noqa: SIM118 - it would convert them


def _is_made_of(made: Dataset, item: Dataset) -> bool:
    """Tell whether a code or lookup table of the result was made of ``item``."""
    keys = (0x00080100, 0x00080102) if 0x00080100 in made else (0x00283002,)
    return all(tag in item and _values(made, tag) == _values(item, tag) for tag in keys)


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
    if not keyword_for_tag(tag):
        return ()
    if set(dictionary_VR(tag).split(" or ")) & _NUMERIC:
        return elements.numbers(dataset, tag) or ()
    return elements.texts(dataset, tag)


def _shown(dataset: Dataset, tag: int) -> str:
    if tag not in dataset or not keyword_for_tag(tag):
        return ""
    vrs = set(dictionary_VR(tag).split(" or "))
    if "SQ" in vrs or vrs & _BULK:
        return ""
    joined = "\\".join(str(value) for value in _values(dataset, tag))
    # A terminal obeys control characters, and they come from whoever wrote the file.
    text = "".join(one if one.isprintable() else "\ufffd" for one in joined)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
