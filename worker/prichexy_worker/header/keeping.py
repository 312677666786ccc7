"""How much of one attribute is kept: from a source element and a rule to a new element.

Nothing is copied. What is written is a rule's own text, a pseudonym, or a value that was parsed
and written anew; the source decides which of them, never how it reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Rejected
from prichexy_worker.header import elements
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
    Vocabulary,
    Words,
)
from prichexy_worker.header.dates import are_of_one_examination, moved_earlier
from prichexy_worker.header.uids import may_stay

__all__ = ["Person", "keep_attributes"]

_LUT_DESCRIPTOR: Final = 0x00283002
_MODALITY_LUT_TYPE: Final = 0x00283004
_LUT_DATA: Final = 0x00283006
#: PS3.3 C.11.1.1.2; another type becomes US, "unspecified".
_LUT_TYPES: Final = frozenset({"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"})
#: So many values a list of numbers has at most: more would be data, not a parameter.
_MOST_VALUES: Final = 256
#: Lookup tables with entries of so many bits are written two entries a word, as PS3.3 C.11.1.1.1
#: has it; they are read in either way.
_PACKED_BITS: Final = 8
_DS_LENGTH: Final = 16
_CS_LENGTH: Final = 16
#: Characters of a text of these VRs, at most (PS3.5 6.2).
_TEXT_LENGTHS: Final = {"LO": 64, "SH": 16, "ST": 1024}
_AGE: Final = re.compile(r"([0-9]{3})([DWMY])", re.ASCII)
#: HIPAA's safe harbour (45 CFR 164.514(b)(2)(i)(C)) has all ages over 89 as one.
_OLDEST: Final = 90


@dataclass(frozen=True, slots=True)
class Person:
    """Whom and what the kept attributes are about.

    ``days_earlier`` is how far the patient's dates are moved, ``study_date`` the study's own date
    as it came; ``names`` are the words of all names in the source, in capitals; ``signed`` is how
    PixelRepresentation has values of VR "US or SS" read.
    """

    patient_id: str
    patient_name: str
    accession_number: str
    days_earlier: int
    study_date: str
    names: frozenset[str]
    uid: Callable[[str], str]
    signed: bool


def keep_attributes(source: Dataset, rules: tuple[Rule, ...], person: Person) -> Dataset:
    """Give a new dataset with what the rules keep of ``source``, which is not altered.

    Raises Rejected UNREADABLE for a sequence that cannot be parsed, UNSUPPORTED_PIXELS for a
    Modality LUT that is none.
    """
    result = Dataset()
    for rule in rules:
        element = _element(source, rule, person)
        if element is not None:
            result.add(element)
    return result


def _element(source: Dataset, rule: Rule, person: Person) -> DataElement | None:
    there = rule.tag in source
    from_nothing = isinstance(rule.keep, Empty | Pseudonym)
    kept = _kept(source, rule, person) if there or from_nothing else None
    if kept is None and there and rule.blank is not None and not _holds(source, rule):
        kept = _new(rule, rule.blank)
    if kept is None and there and rule.otherwise is not None:
        kept = _new(rule, rule.otherwise)
    if kept is None and rule.required is not None:
        kept = _new(rule, rule.required)
    return kept


def _holds(source: Dataset, rule: Rule) -> bool:
    return elements.holds_a_value(source, rule.tag)


def _kept(source: Dataset, rule: Rule, person: Person) -> DataElement | None:
    tag = rule.tag
    match rule.keep:
        case Empty(always):
            return _new(rule, "") if always or tag in source else None
        case Fixed(text):
            return _new(rule, text)
        case Pseudonym():
            return _new(rule, person.patient_name if rule.vr == "PN" else person.patient_id)
        case AccessionNumber():
            return _new(rule, person.accession_number) if person.accession_number else None
        case KeptUid():
            return _kept_uid(source, rule, person)
        case Text():
            return _text(source, rule)
        case Words(vocabulary):
            return _words(source, rule, vocabulary - person.names)
        case ShiftedDate():
            return _moved(source, rule, person)
        case Age():
            return _age(source, rule)
        case Uid():
            uids = [uid for uid in elements.texts(source, tag) if uid]
            return _new(rule, [person.uid(uid) for uid in uids]) if uids else None
        case SopClass():
            uids = list(elements.texts(source, tag))
            return _new(rule, uids) if uids and all(map(_is_sop_class, uids)) else None
        case Values(values):
            return _chosen(rule, _upper(source, tag), lambda value: value in values)
        case Pattern(pattern):
            return _chosen(rule, _upper(source, tag), lambda value: bool(pattern.fullmatch(value)))
        case EachOf(values):
            kept = [value if value in values else "" for value in _upper(source, tag)]
            while kept and not kept[-1]:
                kept.pop()
            return _new(rule, kept) if kept else None
        case Range(low, high):
            return _numbers(source, rule, low, high, signed=person.signed)
        case Codes(vocabulary, modifiers):
            return _codes(source, rule, vocabulary, modifiers, person)
        case Items(rules, needs):
            made = [keep_attributes(item, rules, person) for item in elements.items(source, tag)]
            return _sequence(rule, [item for item in made if all(need in item for need in needs)])
        case LookupTables(modality):
            return _lookup_tables(source, rule, modality=modality, signed=person.signed)


def _new(rule: Rule, value: str | list[str]) -> DataElement:
    if rule.vr == "SQ":
        return DataElement(rule.tag, "SQ", Sequence())
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return DataElement(rule.tag, rule.vr, value)


def _text(source: Dataset, rule: Rule) -> DataElement | None:
    """Give a text as it is, where it is one: printable, and no longer than its VR allows."""
    try:
        text = elements.identifier(source, rule.tag)
    except Rejected:  # not decodable: nobody needs it
        return None
    values = [text] if rule.vr == "ST" else [one.strip() for one in text.split("\\")]
    longest = _TEXT_LENGTHS[rule.vr]
    return _chosen(
        rule,
        values if any(values) else [],
        lambda one: one.replace("\r\n", "").isprintable() and len(one) <= longest,
    )


def _words(source: Dataset, rule: Rule, vocabulary: frozenset[str]) -> DataElement | None:
    text = " ".join(elements.texts(source, rule.tag)).upper()
    words = re.split(r"[^A-Z0-9]+", text.replace("X-RAY", "XRAY"))
    kept = " ".join(dict.fromkeys(word for word in words if word in vocabulary))
    return _new(rule, kept) if 0 < len(kept) <= _TEXT_LENGTHS[rule.vr] else None


def _moved(source: Dataset, rule: Rule, person: Person) -> DataElement | None:
    """Give dates moved; none where one of them is not about the examination.

    A placeholder, such as the first of January 1900, would tell by how much all are moved.
    """
    texts = elements.texts(source, rule.tag)
    if not texts or not all(are_of_one_examination(one, person.study_date) for one in texts):
        return None
    return _new(rule, [moved_earlier(one, person.days_earlier) or "" for one in texts])


def _kept_uid(source: Dataset, rule: Rule, person: Person) -> DataElement | None:
    """Give a UID as it is; its pseudonym where a part of it may be a date, or it is no UID."""
    uids = [uid for uid in elements.texts(source, rule.tag) if uid]
    plain = [uid if may_stay(uid) else person.uid(uid) for uid in uids]
    return _new(rule, plain) if plain else None


def _age(source: Dataset, rule: Rule) -> DataElement | None:
    values = elements.texts(source, rule.tag)
    match = _AGE.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    old = match[2] == "Y" and int(match[1]) >= _OLDEST
    return _new(rule, f"{_OLDEST:03}Y" if old else values[0])


def _sequence(rule: Rule, items: list[Dataset]) -> DataElement | None:
    return DataElement(rule.tag, "SQ", Sequence(items)) if items else None


def _is_sop_class(uid: str) -> bool:
    return UID(uid, validation_mode=config.IGNORE).type == "SOP Class"


def _upper(source: Dataset, tag: int) -> list[str]:
    return [" ".join(value.upper().split()) for value in elements.texts(source, tag)]


def _chosen(rule: Rule, values: list[str], fits: Callable[[str], bool]) -> DataElement | None:
    if not values or not _count_fits(rule.vm, len(values)):
        return None
    if any(len(value) > _CS_LENGTH and rule.vr == "CS" for value in values):
        return None
    return _new(rule, values) if all(fits(value) for value in values) else None


def _count_fits(vm: str, count: int) -> bool:
    """Tell whether an attribute of value multiplicity ``vm`` ("1", "1-3", "2-2n") may have so many.

    An "n" is ``_MOST_VALUES`` at most.
    """
    low, _, high = vm.partition("-")
    if not high:
        return count == int(low)
    if not high.endswith("n"):
        return int(low) <= count <= int(high)
    step = int(high[:-1] or 1)
    return int(low) <= count <= _MOST_VALUES and count % step == 0


def _numbers(
    source: Dataset, rule: Rule, low: float, high: float, *, signed: bool
) -> DataElement | None:
    values = elements.numbers(source, rule.tag)
    if values is None or not _count_fits(rule.vm, len(values)):
        return None
    vr = ("SS" if signed else "US") if rule.vr == "US or SS" else rule.vr
    if rule.vr == "US or SS":
        values = tuple(_as_16_bit(value, signed=signed) for value in values)
    if not all(low <= value <= high for value in values):
        return None
    if vr == "DS":
        return _new(rule, [_decimal(float(value)) for value in values])
    if not all(float(value).is_integer() for value in values):
        return None
    whole = [int(value) for value in values]
    if vr == "IS":
        return _new(rule, [str(value) for value in whole])
    return DataElement(rule.tag, vr, whole[0] if len(whole) == 1 else whole)


def _as_16_bit(value: float, *, signed: bool) -> int:
    bits = int(value) & 0xFFFF
    return bits - 0x10000 if signed and bits & 0x8000 else bits


def _decimal(value: float) -> str:
    """Give the shortest decimal string of ``value`` that a DS holds."""
    text = repr(value).removesuffix(".0")
    return text if len(text) <= _DS_LENGTH else format_number_as_ds(value)


def _codes(
    source: Dataset,
    rule: Rule,
    vocabulary: Vocabulary,
    modifiers: tuple[Rule, ...],
    person: Person,
) -> DataElement | None:
    made = []
    for item in elements.items(source, rule.tag):
        value = elements.texts(item, 0x00080100)
        scheme = elements.texts(item, 0x00080102)
        if len(value) != 1 or len(scheme) != 1:
            continue
        meaning = vocabulary.get((value[0], scheme[0]))
        if meaning is None:
            continue
        coded = keep_attributes(item, modifiers, person)
        coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = *value, *scheme, meaning
        if coded not in made:  # some sequences may have one item only, and none needs one twice
            made.append(coded)
    return _sequence(rule, made)


def _lookup_tables(
    source: Dataset, rule: Rule, *, modality: bool, signed: bool
) -> DataElement | None:
    made = []
    for item in elements.items(source, rule.tag):
        table = _lookup_table(item, signed=signed)
        if table is None:
            if modality:
                # Without it the stored values would quietly mean something else.
                raise Rejected(Reason.UNSUPPORTED_PIXELS, f"{elements.name(rule.tag)} is no table")
            continue
        if modality:
            kinds = [
                kind for kind in elements.texts(item, _MODALITY_LUT_TYPE) if kind in _LUT_TYPES
            ]
            table.add(DataElement(_MODALITY_LUT_TYPE, "LO", kinds[0] if kinds else "US"))
        made.append(table)
    return _sequence(rule, made)


def _lookup_table(item: Dataset, *, signed: bool) -> Dataset | None:
    """Give a lookup table without its explanation, or None where it is none.

    The data must be as long as the descriptor says, of no more bits than it says, and never turn
    back: text that is hidden in a table does none of the three.
    """
    descriptor, data = elements.numbers(item, _LUT_DESCRIPTOR), elements.words(item, _LUT_DATA)
    if descriptor is None or len(descriptor) != 3 or not data:
        return None
    entries, bits = int(descriptor[0]) & 0xFFFF or 0x10000, int(descriptor[2]) & 0xFFFF
    packed = bits == _PACKED_BITS and len(data) == entries + entries % 2
    values = np.frombuffer(data, dtype="u1" if packed else "<u2").astype(np.int32)
    values = values[:entries] if packed else values
    if not _PACKED_BITS <= bits <= 16 or values.size != entries or int(values.max()) >> bits:
        return None
    steps = np.diff(values)
    if not (bool((steps >= 0).all()) or bool((steps <= 0).all())):
        return None
    first = int(descriptor[1]) & 0xFFFF
    negative = descriptor[1] < 0 or (signed and first >= 0x8000)
    numbers = [entries & 0xFFFF, first - 0x10000 if negative else first, bits]
    table = Dataset()
    # Whatever the VR, the first value is unsigned (PS3.3 C.11.1.1.1); pydicom writes it so.
    table.add(DataElement(_LUT_DESCRIPTOR, "SS" if negative else "US", numbers))
    if bits == _PACKED_BITS and not packed:
        data = values.astype(np.uint8).tobytes() + b"\0" * (entries % 2)
    table.add(DataElement(_LUT_DATA, "OW", data))
    return table
