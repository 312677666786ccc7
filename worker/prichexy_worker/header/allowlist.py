"""The allow-lists: which attributes of an object may be kept, and how much of each.

Each SOP class has its list (``*.yaml``; the notation is explained in radiograph.yaml), and each
option of PS3.15 E.3 has more attributes (option_lists.yaml). Reading a list lays Table E.1-1 over
it: where the list names an attribute of the table, the table's action is what happens, or what a
chosen option does instead. A list can only ever take away from what the table leaves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

import yaml
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from prichexy_worker.errors import Misconfigured
from prichexy_worker.header import table
from prichexy_worker.header.options import Option

__all__ = [
    "AccessionNumber",
    "Age",
    "Codes",
    "EachOf",
    "Empty",
    "Fixed",
    "Items",
    "Keep",
    "KeptUid",
    "LookupTables",
    "Pattern",
    "Pseudonym",
    "Range",
    "Rule",
    "ShiftedDate",
    "SopClass",
    "Text",
    "Uid",
    "Values",
    "Vocabulary",
    "Words",
    "allow_lists",
    "parse_attributes",
    "parse_rule",
    "under_the_table",
]

#: (Code Value, Coding Scheme Designator) to Code Meaning.
Vocabulary = Mapping[tuple[str, str], str]

_LISTS: Final = ("cr", "dx", "secondary_capture")
#: Designators under which older objects name SNOMED codes of the SRT form.
_SRT: Final = ("SRT", "SNM3", "99SDM")
#: No bound reaches to 8 digits: a date, written as a number, is never within a range.
_GREATEST: Final = 9_999_999


@dataclass(frozen=True, slots=True)
class Empty:
    """There and empty: always, or only where the source has the attribute."""

    always: bool


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same text, where the source has the attribute."""

    text: str


@dataclass(frozen=True, slots=True)
class Pseudonym:
    """The patient's pseudonym."""


@dataclass(frozen=True, slots=True)
class AccessionNumber:
    """The accession number's pseudonym, by its issuer where the source names one."""


@dataclass(frozen=True, slots=True)
class Uid:
    """The UID's pseudonym."""


@dataclass(frozen=True, slots=True)
class KeptUid:
    """The UID as it is."""


@dataclass(frozen=True, slots=True)
class Text:
    """The text as it is, in whatever character set it came."""


@dataclass(frozen=True, slots=True)
class Words:
    """Of the text the words of a vocabulary, in capitals; all others are left out."""

    vocabulary: frozenset[str]


@dataclass(frozen=True, slots=True)
class ShiftedDate:
    """The date, earlier by the patient's own number of days; of a date and time the date."""


@dataclass(frozen=True, slots=True)
class Age:
    """The age; from 90 years on 090Y."""


@dataclass(frozen=True, slots=True)
class SopClass:
    """The UID itself where the standard registers it as a SOP Class."""


@dataclass(frozen=True, slots=True)
class Values:
    """Exactly one of these, in each value."""

    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class EachOf:
    """These; another value becomes empty in its place."""

    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Each value matches."""

    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers, all within the bounds, which are included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Codes:
    """Coded items out of a vocabulary, with coded modifiers within."""

    vocabulary: Vocabulary
    modifiers: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Items:
    """Items that keep what their own list allows; without all of ``needs`` an item is dropped."""

    rules: tuple[Rule, ...]
    needs: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class LookupTables:
    """Lookup tables that are what they say. ``modality``: of the Modality LUT, else of VOI LUTs."""

    modality: bool


Keep = (
    Empty
    | Fixed
    | Pseudonym
    | AccessionNumber
    | Uid
    | KeptUid
    | Text
    | Words
    | ShiftedDate
    | Age
    | SopClass
    | Values
    | EachOf
    | Pattern
    | Range
    | Codes
    | Items
    | LookupTables
)


@dataclass(frozen=True, slots=True)
class Rule:
    """How much of one attribute is kept, and what is written where nothing may be.

    ``otherwise`` where the source's value may not be kept, ``blank`` where it is empty there,
    ``required`` where it has none; None leaves the attribute out, "" leaves it empty.
    """

    tag: int
    vr: str
    vm: str
    keep: Keep
    otherwise: str | None = None
    required: str | None = None
    blank: str | None = None
    keyword: str = field(default="", compare=False)


#: What a list may ask for an attribute under each action of the table.
_WITHIN: Final[Mapping[str, tuple[type, ...]]] = {
    "X": (),
    "X/D": (),
    "X/Z": (Empty,),
    "X/Z/D": (Empty,),
    "X/Z/U*": (Empty, Items),
    "Z": (Empty, Pseudonym, AccessionNumber),
    "Z/D": (Empty, Pseudonym),
    "D": (Fixed, Pseudonym),
    "U": (Uid,),
}
#: What keeps a value as it came: for that an option must say K.
_AS_IT_IS: Final = (KeptUid, Text, Age)
#: What happens instead to an attribute of which a list asks for more; the others are left out.
_INSTEAD: Final[Mapping[str, Keep]] = {"Z": Empty(True), "Z/D": Empty(True), "U": Uid()}
_SIMPLE: Final[Mapping[str, Keep]] = {
    "empty": Empty(always=True),
    "emptied": Empty(always=False),
    "pseudonym": Pseudonym(),
    "accession_number": AccessionNumber(),
    "uid": Uid(),
    "kept_uid": KeptUid(),
    "text": Text(),
    "shifted_date": ShiftedDate(),
    "age": Age(),
    "sop_class": SopClass(),
    "modality_tables": LookupTables(modality=True),
    "voi_tables": LookupTables(modality=False),
}


@cache
def allow_lists(options: frozenset[Option] = frozenset()) -> Mapping[str, tuple[Rule, ...]]:
    """Give the rules by SOP Class UID, under the table and the options, in the order of their tags.

    Raises Misconfigured, naming the attribute, when a list does not read as one.
    """
    more: dict[str, Any] = {}
    for option in sorted(options):
        more.update(_read("option_lists")[option.value])
    lists: dict[str, tuple[Rule, ...]] = {}
    for name in _LISTS:
        data = _read(name)
        base = _read(data["include"])["attributes"]
        own = {key: _extended(key, value, base) for key, value in data["attributes"].items()}
        listed = {**base, **own}
        optional = {key: _instead_of(listed.get(key), value) for key, value in more.items()}
        rules = parse_attributes({**listed, **optional}, options)
        lists.update(dict.fromkeys(data["sop_classes"], rules))
    return MappingProxyType(lists)


def parse_attributes(
    attributes: Mapping[str, Any], options: Collection[Option] = ()
) -> tuple[Rule, ...]:
    """Give the rules of an allow-list's ``attributes``, under the table and the options.

    Raises Misconfigured, naming the attribute, where one is unknown, private or not understood.
    """
    rules = (parse_rule(keyword, value, options) for keyword, value in attributes.items())
    kept = (under_the_table(rule, options) for rule in rules)
    return tuple(sorted((rule for rule in kept if rule), key=lambda rule: rule.tag))


def under_the_table(rule: Rule, options: Collection[Option] = ()) -> Rule | None:
    """Give the rule as Table E.1-1 leaves it; None where nothing of the attribute may be kept.

    Where one of ``options`` says K, any rule stands; where one says C, any that does not keep a
    value as it came; else the Basic Profile's action decides.
    """
    action = table.action(rule.tag)
    if action is None or isinstance(rule.keep, _WITHIN[action]):
        return rule
    permitted = table.under_options(rule.tag, options)
    if permitted == "K" or (permitted == "C" and not isinstance(rule.keep, _AS_IT_IS)):
        return rule
    instead = _INSTEAD.get(action)
    return Rule(rule.tag, rule.vr, rule.vm, instead, keyword=rule.keyword) if instead else None


def parse_rule(keyword: str, value: Any, options: Collection[Option] = ()) -> Rule:
    """Give one rule as it is written, not yet under the table; its items' rules are.

    Raises Misconfigured, naming the attribute, where it is unknown, private or not understood.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise Misconfigured(f"header allow-list: {keyword} is no attribute of the standard")
    try:
        notation = {value: None} if isinstance(value, str) else dict(value)
        otherwise, required = notation.pop("otherwise", None), notation.pop("required", None)
        blank = notation.pop("blank", None)
        keep = _keep(notation, options)
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        raise Misconfigured(f"header allow-list: {keyword} is not understood") from error
    vr, vm = dictionary_VR(tag), dictionary_VM(tag)
    return Rule(tag, vr, vm, keep, otherwise, required, blank, keyword)


def _keep(notation: dict[str, Any], options: Collection[Option]) -> Keep:
    (kind, *more) = notation
    value = notation[kind]
    allowed = {"codes": ["modifiers"], "items": ["needs"]}.get(kind, [])
    if not set(more) <= set(allowed):
        raise ValueError(kind)
    match kind:
        case "fixed":
            return Fixed(value)
        case "values":
            return Values(frozenset(_strings(value)))
        case "each_of":
            return EachOf(frozenset(_strings(value)))
        case "pattern":
            return Pattern(re.compile(value, re.ASCII))
        case "range":
            low, high = value
            if not -_GREATEST <= low <= high <= _GREATEST:
                raise ValueError(kind)
            return Range(low, high)
        case "codes":
            modifiers = parse_attributes(notation.get("modifiers", {}), options)
            return Codes(_vocabularies()[value], modifiers)
        case "words":
            return Words(_words()[value])
        case "items":
            needs = frozenset(_tag(keyword) for keyword in notation.get("needs", ()))
            return Items(parse_attributes(value, options), needs)
        case _:
            if value is not None:
                raise ValueError(kind)
            return _SIMPLE[kind]


def _strings(values: Any) -> Iterator[str]:
    if not isinstance(values, list) or not values:
        raise TypeError(values)  # a text would be taken for its letters
    for value in values:
        # YAML reads NO as a truth value, 00 as a number. Values are compared in capitals.
        if not isinstance(value, str) or value != " ".join(value.upper().split()):
            raise TypeError(value)
        yield value


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


def _instead_of(listed: Any, optional: Any) -> Any:
    """Give an option's rule so that the attribute is as present as by the list's: Type 2 stays."""
    notation = {optional: None} if isinstance(optional, str) else dict(optional)
    if listed == "empty":
        return {"required": "", **notation}
    return {"otherwise": "", **notation} if listed == "emptied" else notation


def _extended(keyword: str, value: Any, base: Mapping[str, Any]) -> Any:
    """Give ``value``, laid over the included list's where it says ``extend``."""
    if not isinstance(value, dict) or "extend" not in value:
        return value
    if not isinstance(base.get(keyword), dict):
        raise Misconfigured(f"header allow-list: {keyword} extends nothing")
    return {**base[keyword], **{key: one for key, one in value.items() if key != "extend"}}


@cache
def _vocabularies() -> Mapping[str, Vocabulary]:
    vocabularies: dict[str, Vocabulary] = {}
    for name, rows in _read("codes").items():
        concepts: dict[tuple[str, str], str] = {}
        for row in rows:
            meaning = row["meaning"]
            for scheme in row.keys() - {"meaning"}:
                for designator in _SRT if scheme == "SRT" else (scheme,):
                    concepts[row[scheme], designator] = meaning
        vocabularies[name] = MappingProxyType(concepts)
    return MappingProxyType(vocabularies)


@cache
def _words() -> Mapping[str, frozenset[str]]:
    vocabularies: dict[str, list[list[str]]] = _read("words")
    return MappingProxyType(
        {
            name: frozenset(word for line in lines for word in _strings(line))
            for name, lines in vocabularies.items()
        }
    )


@cache
def _read(name: str) -> Any:
    return yaml.safe_load(resources.files(__package__).joinpath(f"{name}.yaml").read_bytes())
