"""What could identify somebody in a source object, as the byte strings that would show it.

Nothing here alters the dataset, and no text, ``repr`` or exception shows a value of it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID
from pydicom.values import convert_SQ

from prichexy_worker.encoded import NotSearchable
from prichexy_worker.needles import (
    Needle,
    Search,
    of_bytes,
    of_moment,
    of_name,
    of_number,
    of_raw,
    of_text,
    of_uid,
    of_words,
)
from prichexy_worker.quiet import without_noise

__all__ = [
    "PUBLIC_SCHEMES",
    "digits_that_identify",
    "needles",
    "significant_digits",
    "unchanged_number",
]

#: Coding schemes whose codes are published: they say nothing about anybody.
PUBLIC_SCHEMES: Final = frozenset(
    {"99SDM", "DCM", "DCMR", "FMA", "ISO3166_1", "ISO639_1", "LN", "NCIt", "RADLEX", "RFC5646"}
    | {"SCT", "SNM3", "SRT", "UCUM", "UMLS"}
)
#: Values of ImageType that are terms; anything else there may be free text.
_IMAGE_TYPES: Final = frozenset(
    {"DERIVED", "LATERAL", "LOCALIZER", "ORIGINAL", "POST_PROCESSED", "PRIMARY", "SECONDARY"}
)
#: Attributes whose values are numbers or names of one person, study or device.
_IDENTITY: Final = re.compile(
    r"(Patient|OtherPatient|Admission|RequestedProcedure|ScheduledProcedureStep|LocalNamespaceEntity"
    r"|PerformedProcedureStep|ServiceEpisode|Study|ClinicalTrial.*|Detector|Plate|Cassette|Gantry"
    r"|IssuerOfPatient|UniversalEntity)IDs?"
    r"|(Accession|DeviceSerial|(Filler|Placer)Order|PatientTele|PatientAddress).*"
    r"|MedicalRecordLocator"
    r"|InsurancePlanIdentification"
)
#: UIDs that name a class, a scheme or a program.
_PUBLIC_UIDS: Final = re.compile(
    r".*SOPClassUID|TransferSyntaxUID|CodingSchemeUID|ContextUID|ImplementationClassUID"
)
_TEXTUAL: Final = frozenset(
    {"AE", "AS", "CS", "DS", "IS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"}
)
_IN_CHARACTER_SET: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_SINGLE: Final = frozenset({"LT", "ST", "UR", "UT"})
_BYTES: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_CODE_VALUES: Final = frozenset({0x00080100, 0x00080119, 0x00080120})
_CHARACTER_SET: Final = 0x00080005
_IMAGE_TYPE: Final = 0x00080008
_SCHEME: Final = 0x00080102
_MAPPING_RESOURCE: Final = 0x00080105
_DELIMITERS: Final = {0x09, 0x0A, 0x0C, 0x0D, 0x3D, 0x5C, 0x5E}
_LINES: Final = re.compile(r"[\r\n\f\\]+")
_PLAIN_CODE: Final = re.compile(r"[A-Z_ 0-9]{0,16}")
_STANDARD: Final = re.compile(r"ISO_[0-9]{5}_[0-9]{1,2}|ISO[_ ]IR [0-9]{1,3}")
_FOUR_DIGITS: Final = re.compile(r"[0-9]{4}")
#: A date as digits, with or without separators: month names would leave a number of the day.
_DATE: Final = re.compile(rb"[0-9]{2,14}([-./ ]?[0-9]+)*(\.[0-9]+)?")
#: Fewer are common numbers: an exposure of 120, the fifth series.
_FEWEST_DIGITS: Final = 4
#: What pydicom decodes with where no SpecificCharacterSet is given.
_DEFAULT: Final = ["iso8859"]
#: What pydicom raises over a malformed value.
_MALFORMED: Final = (LookupError, ValueError, TypeError, AttributeError, OSError)
_UNPARSED: Final = (*_MALFORMED, EOFError, NotImplementedError, RecursionError, struct.error)

_Element = DataElement | RawDataElement


def needles(source: Dataset) -> tuple[Needle, ...]:
    """Give every form of every value of ``source`` that could identify somebody.

    Their origins are the tags: "0010,0020", nested "0040,0275/0008,0050", or "preamble". Left
    out, for they say nothing about anybody or cannot be told from chance: pixel data, lookup
    tables, binary and decimal numbers of standard elements, code strings in their standard form,
    published codes and UIDs. Raises NotSearchable when a value cannot be read.
    """
    meta = getattr(source, "file_meta", None)
    preamble = getattr(source, "preamble", None)
    try:
        with without_noise():
            found = [] if meta is None else list(_dataset(meta, (), _DEFAULT))
            found += _dataset(source, (), _DEFAULT)
            if preamble:
                found += of_bytes("preamble", bytes(preamble))
    except _UNPARSED:
        raise NotSearchable("a value of the source cannot be read") from None
    return tuple(dict.fromkeys(found))


def digits_that_identify(sought: Iterable[Needle]) -> Mapping[str, frozenset[str]]:
    """Give the digits of identifiers and dates, without leading zeros, and the tags they are of.

    Four digits or more. Not those of a name or a time: whole hours and minutes are common numbers.
    """
    digits: dict[str, set[str]] = {}
    for needle in sought:
        if needle.search is not Search.IDENTITY or not needle.form.isascii():
            continue
        tag = int(needle.origin[-9:].replace(",", ""), 16)
        keyword = keyword_for_tag(tag)
        # By tag: the keyword of a repeating group, such as OverlayType, names none.
        date = bool(keyword) and dictionary_VR(tag) in ("DA", "DT")
        if _DATE.fullmatch(needle.form) if date else _IDENTITY.fullmatch(keyword):
            number = significant_digits(needle.form)
            if len(number) >= _FEWEST_DIGITS:
                digits.setdefault(number, set()).add(needle.origin)
    return {number: frozenset(origins) for number, origins in digits.items()}


def significant_digits(text: bytes) -> str:
    """Give the decimal digits of a text, whatever stands between them, without leading zeros."""
    return "".join(re.findall("[0-9]", text.decode("latin-1"))).lstrip("0")


def unchanged_number(source: Dataset, path: Sequence[int], value: bytes) -> bool:
    """Tell whether the unpadded DS or IS ``value`` stands in the source below the same tags."""
    with without_noise():
        holders = [source]
        for sequence in path[:-1]:
            elements = [holder.get_item(sequence) for holder in holders if sequence in holder]
            holders = [item for element in elements for item in _items(element, "SQ") or ()]
        numbers = [holder.get_item(path[-1]) for holder in holders if path[-1] in holder]
        return any(value == "\\".join(_values(number, "DS", [])).encode() for number in numbers)


def _dataset(dataset: Dataset, path: tuple[int, ...], encodings: list[str]) -> Iterator[Needle]:
    encodings = _encodings(dataset, encodings)
    public = not PUBLIC_SCHEMES.isdisjoint(_texts(dataset, _SCHEME))
    for tag in sorted(int(tag) for tag in dataset.keys()):  # noqa: SIM118 (it iterates elements)
        element = dataset.get_item(tag)
        vr = _vr(element)
        items = _items(element, vr)
        if items is not None:
            for item in items:
                yield from _dataset(item, (*path, tag), encodings)
        elif not ((tag in _PIXELS and not path) or (public and tag in _CODE_VALUES)):
            yield from _element(element, vr, (*path, tag), encodings)


def _element(
    element: _Element, vr: str, path: tuple[int, ...], encodings: list[str]
) -> Iterator[Needle]:
    tag = path[-1]
    origin = "/".join(f"{one >> 16:04X},{one & 0xFFFF:04X}" for one in path)
    raw = _raw(element)
    if vr in _BYTES or vr == "SQ":
        # A sequence that does not parse is searched as bytes. Group 0028: lookup tables.
        if vr in ("UN", "SQ") or tag >> 16 != 0x0028:
            yield from of_bytes(origin, raw)
        return
    values = _values(element, vr, encodings)
    if vr == "UI":
        yield from _uids(origin, tag, values)
    elif vr == "PN":
        for value in values:
            yield from of_name(origin, value, encodings)
        yield from of_raw(origin, Search.IDENTITY, raw)
    elif vr in ("DA", "DT", "TM"):
        for value in values:
            yield from of_moment(origin, vr, value)
    elif vr in _TEXTUAL:
        yield from _texts_of(origin, vr, tag, values, raw, encodings)


def _uids(origin: str, tag: int, values: Sequence[str]) -> Iterator[Needle]:
    if not _PUBLIC_UIDS.fullmatch(keyword_for_tag(tag)):
        for value in values:
            # The name of a UID that the standard registers is not the UID itself.
            registered = UID(value).name != value or value == PYDICOM_IMPLEMENTATION_UID
            if value and not registered:
                yield from of_uid(origin, value)


def _texts_of(
    origin: str, vr: str, tag: int, values: Sequence[str], raw: bytes, encodings: list[str]
) -> Iterator[Needle]:
    standard = not tag >> 16 & 1
    if standard and vr in ("DS", "IS") and tag >> 16 not in (0x0010, 0x0038):
        return
    known = standard and _IDENTITY.fullmatch(keyword_for_tag(tag))
    search = Search.IDENTITY if known or vr == "CS" else Search.TEXT
    for value in values:
        if not (standard and _is_term(vr, tag, value)):
            for one in {value, *_LINES.split(value)}:
                yield from of_text(origin, search, one, encodings)
                if known:
                    phone = "Telephone" in keyword_for_tag(tag)
                    yield from of_number(origin, one, telephone=phone)
                elif search is Search.TEXT:
                    yield from of_words(origin, one)
    if vr in _IN_CHARACTER_SET:
        yield from of_raw(origin, search, raw)


def _is_term(vr: str, tag: int, value: str) -> bool:
    if tag in (_SCHEME, _MAPPING_RESOURCE):
        return value in PUBLIC_SCHEMES
    if tag == _IMAGE_TYPE:
        return value in _IMAGE_TYPES or len(value) < 4
    # Of the defined terms only the names of standards have four digits in a row.
    plain = _PLAIN_CODE.fullmatch(value) and not _FOUR_DIGITS.search(value)
    return vr == "CS" and bool(plain or _STANDARD.fullmatch(value))


def _texts(dataset: Dataset, tag: int) -> list[str]:
    return _values(dataset.get_item(tag), "CS", []) if tag in dataset else []


def _values(element: _Element, vr: str, encodings: list[str]) -> list[str]:
    value: Any = element.value
    if value is None:
        return []
    if isinstance(value, bytes):
        text = _decoded(value, encodings) if vr in _IN_CHARACTER_SET else value.decode("latin-1")
        values = [text] if vr in _SINGLE else text.split("\\")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        values = [str(one) for one in value]
    else:
        values = [str(value)]
    return [one.strip(" \0") for one in values]


def _decoded(raw: bytes, encodings: list[str]) -> str:
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    try:
        return decode_bytes(raw, encodings, _DELIMITERS)
    except _MALFORMED:
        return raw.decode("latin-1")


def _raw(element: _Element) -> bytes:
    """Give the value's bytes where they are at hand; none of a value that was decoded already."""
    value: Any = element.value
    if value is None and isinstance(element, RawDataElement) and element.length:
        raise NotSearchable("a value of the source was not read")
    if isinstance(value, bytes):
        return value
    if isinstance(value, Sequence) and all(isinstance(one, bytes) for one in value):
        return b"\\".join(value)
    original = getattr(value, "original_string", None)
    return original if isinstance(original, bytes) else b""


def _items(element: _Element, vr: str) -> list[Dataset] | None:
    """Give the items of a sequence; None for anything else, also for one that does not parse."""
    value: Any = element.value
    if vr != "SQ":
        return None
    if isinstance(element, DataElement) or not isinstance(value, bytes):
        return list(value or ())
    try:
        return list(convert_SQ(value, element.is_implicit_VR, element.is_little_endian))
    except _UNPARSED:
        return None


def _vr(element: _Element) -> str:
    if element.VR and element.VR != "UN":
        return str(element.VR)
    try:
        known = dictionary_VR(element.tag)
    except KeyError:
        return "UN"
    # A sequence that came as UN may be encoded either way: its bytes are searched as they are.
    return "UN" if element.VR == "UN" and known == "SQ" else known.split(" or ")[0]


def _encodings(dataset: Dataset, inherited: list[str]) -> list[str]:
    if _CHARACTER_SET not in dataset:
        return inherited
    try:
        return convert_encodings(_texts(dataset, _CHARACTER_SET))
    except _MALFORMED:
        return inherited
