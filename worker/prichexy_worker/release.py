"""The residual search: whether identifying values of the source occur in the result.

It is independent of the de-identification that it judges. It knows no allow-list of that, reads
the result's bytes with a reader of its own (``encoded``), and withholds a result that it cannot
search completely.

**Where and how a value is sought.** ``len`` counts characters; bytes for what is not ASCII.

====================  ==============  ===========================  ==========================
value                 whole value     word (no letter or digit     anywhere in a value
                                      before or after)
====================  ==============  ===========================  ==========================
name, number, date    len 1 to 3      len 4 and 5                  len 6 and more
other text            len 4 to 7      -                            len 8 and more
UID                   len up to 11    -                            len 12 and more
bytes that are no     -               -                            probes of 24 bytes
text
====================  ==============  ===========================  ==========================

"Whole value" is a value of a text element, or a component of a name in one. Names are sought as
they are, in capitals and with initial capitals. All this is sought in every value of the header
and of what follows the pixels, but for three kinds of coincidence: a decimal number that stands
unchanged where the source had it; for "other text" any number or code string and the codes of
published schemes; and digits within a UID (UIDs are sought everywhere, all else not in UIDs).

**Re-spellings** (``respellings``) are sought in the text of the result, decoded in its own
character set, without regard to capitals, diacritics, punctuation and leading zeros:

====================  ==========================================================================
names                 each word of four letters; any two words in both orders, one of them perhaps
                      an initial, apart or run together
numbers, telephones   with other separators or none, from four characters on; the last eight digits
                      of a telephone number
dates                 day, month and year in any usual order, the month as number or word (English,
                      German, French, Spanish, Italian, Dutch, Portuguese)
other text            as a whole, from eight characters on
====================  ==========================================================================

What is run together (as all text is for this search, value by value) is sought within other
characters where it has six with three digits, or eight; as a word where it is shorter.

**Numbers** (DS, IS), unchanged or not, are compared by their digits with those of the source's
identifiers and dates, both without leading zeros and whatever stands between the digits:

==================================  ==========================================================
one value of an element             equal, and 4 digits or more: 1970.0101 is a date of birth
all its values, one by another      equal, and 6 digits or more: 12, 34, 56, 78 is 12345678
shorter                             no alarm: a KVP of 120 says nothing of patient 120
2**n or 2**n - 1, n from 10 to 16,  no alarm: so windows are, whatever a patient's number is
in group 0028
==================================  ==========================================================

**In pixel data** (and other binary values of more than 64 bytes) only what has 12 characters or
more, five of them different, is sought. A random 8-bit image of 10 MB, with a noise of five grey
levels, shows a given string of eight digits with a chance of about 1e-3, one of twelve with 1e-7;
a source has up to some hundred such strings. Bytes after the last pixel count as header.
Of compressed pixels the values that went into them are searched, besides the compressed bytes;
without these values the result counts as one that cannot be searched.

**What is not promised.** Text drawn into the image; values of one to three characters other than
names, numbers and dates; a name that is only part of a free text of the source; values that were
transformed (encrypted, hashed, in Base64 or hexadecimal, translated, transliterated, abbreviated,
misspelt, shifted dates, years of two digits, times of day in other notations, other character sets
than the source's own, the result's, UTF-8, UTF-16 and Latin-1); re-spellings in binary values;
binary numbers of standard elements, and decimal ones that only hold or resemble an identifier; bits
hidden among the pixels; short values within pixel data; and identity by combination.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset

from prichexy_worker.contract import Reason
from prichexy_worker.encoded import PIXEL_DATA, PREAMBLE, Element, NotSearchable, elements
from prichexy_worker.errors import Rejected
from prichexy_worker.identifiers import (
    PUBLIC_SCHEMES,
    digits_that_identify,
    needles,
    significant_digits,
    unchanged_number,
)
from prichexy_worker.needles import RESPELT, Needle, Search
from prichexy_worker.respellings import spelt, together

__all__ = ["NOTHING", "Allowed", "check_release", "surviving_identifiers"]

_TEXT_VRS: Final = frozenset({"AE", "AS", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"})
_BINARY_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
#: Text that is decoded, to be searched for re-spellings. Numbers have a rule of their own.
_SPELT_VRS: Final = _TEXT_VRS | {"CS", "DA", "DT"}
_CHARACTER_SET: Final = 0x00080005
_DELIMITERS: Final = {0x09, 0x0A, 0x0C, 0x0D, 0x3D, 0x5E}
_SHORT_BINARY: Final = 64
_PIXEL_CHARACTERS: Final = 12
_PIXEL_VARIETY: Final = 5
_CODE_VALUE, _SCHEME, _CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
_CODED: Final = frozenset({_CODE_VALUE, _SCHEME, _CODE_MEANING})
#: The digits of all values of an element, joined, meet an identifier from this length on.
_JOINED_DIGITS: Final = 6
_WINDOWS: Final = frozenset(str(2**bits - less) for bits in range(10, 17) for less in (0, 1))
_ROWS, _COLUMNS, _ALLOCATED, _SAMPLES = 0x00280010, 0x00280011, 0x00280100, 0x00280002


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a project lets pass, by its own choice.

    ``kept`` are places of the source ("0008,0080", nested "0008,0082/0008,0104") whose values stay
    as they are. They are not sought for their own sake, nor where the same attribute stands
    elsewhere in the source, nor a UID that they share with another; the names, numbers, dates and
    texts of other attributes are sought in them as everywhere, and in UIDs that are kept besides.
    ``cleaned`` are whole values of the result by their tag, at top level: a date that was moved is
    no alarm there, nor is text of nothing but known words as text; as a name or a number it is.
    """

    kept: frozenset[str] = frozenset()
    cleaned: frozenset[tuple[int, str]] = frozenset()


NOTHING: Final = Allowed()


def check_release(
    source: Dataset,
    result: bytes,
    *,
    own_texts: Collection[str] = (),
    allowed: Allowed = NOTHING,
    pixels: bytes | None = None,
) -> None:
    """Return only when the result was searched whole and holds no identifying value of the source.

    Raises Rejected IDENTITY_SURVIVED naming the source's tags, or that the result (or a value of
    the source) could not be searched. ``own_texts``, ``allowed``, ``pixels``: see
    ``surviving_identifiers``.
    """
    survivors = surviving_identifiers(
        source, result, own_texts=own_texts, allowed=allowed, pixels=pixels
    )
    if survivors:
        raise Rejected(Reason.IDENTITY_SURVIVED, f"tags {', '.join(survivors)}")


def surviving_identifiers(
    source: Dataset,
    result: bytes,
    *,
    own_texts: Collection[str] = (),
    allowed: Allowed = NOTHING,
    pixels: bytes | None = None,
) -> tuple[str, ...]:
    """Give the tags of the source whose values occur in the result: "0010,0020", in order.

    Nested ones as "0040,0275/0008,0050", the preamble as "preamble"; never a value. ``own_texts``
    are whole values that the software writes itself, whatever the source says: they are not
    searched. ``allowed`` is what the project lets pass. ``pixels`` are the stored values,
    uncompressed: needed where the result holds them compressed, and not looked at otherwise. The
    source is not altered. Raises Rejected IDENTITY_SURVIVED when the result is no file that can be
    searched completely.
    """
    try:
        sought = _without(needles(source), allowed.kept)
        found = list(elements(result))
        own = frozenset(text.encode() for text in own_texts)
        areas = _areas(source, result, found, own, allowed)
        haystacks = areas[Search.DATA].pixels
        if any(element.encapsulated for element in found):
            haystacks.append(_uncompressed(pixels))
    except NotSearchable as error:
        raise Rejected(Reason.IDENTITY_SURVIVED, f"could not be searched: {error}") from None
    survivors = {needle.origin for needle in sought if areas[needle.search].shows(needle)}
    survivors |= _in_pixels(sought, haystacks)
    survivors |= _in_numbers(sought, result, found)
    return tuple(sorted(survivors))


def _without(sought: Sequence[Needle], kept: frozenset[str]) -> tuple[Needle, ...]:
    """Give the needles but for those of what is kept, and of the same values at the same tags."""
    same = {_likeness(needle) for needle in sought if needle.origin in kept}
    return tuple(
        needle for needle in sought if needle.origin not in kept and _likeness(needle) not in same
    )


def _likeness(needle: Needle) -> tuple[Search, bytes, str]:
    """Give what two needles share that show one value of one attribute; of UIDs, of any."""
    tag = "" if needle.search is Search.UID else needle.origin[-9:]
    return needle.search, needle.form, tag


def _uncompressed(pixels: bytes | None) -> bytes:
    if pixels is None:
        raise NotSearchable("compressed pixels")
    return pixels


@dataclass(slots=True)
class _Area:
    """The values of the result that one kind of search looks at."""

    values: list[bytes] = field(default_factory=list)
    whole: set[bytes] = field(default_factory=set)
    pixels: list[bytes] = field(default_factory=list)
    joined: bytes = b""

    def shows(self, needle: Needle) -> bool:
        """Tell whether the header shows the needle, by the rules in the module's text."""
        form, length = needle.form, needle.characters
        match needle.search:
            case Search.DATA | Search.WORDS | Search.RUN | Search.TEXT_WORDS:
                return form in self.joined
            case Search.UID:
                return form in (self.joined if length >= 12 else self.whole)
            case Search.TEXT:
                if length < 4:
                    return False
                return form in (self.joined if length >= 8 else self.whole)
            case Search.IDENTITY:
                if length < 4:
                    return form in self.whole
                return form in self.joined and (length > 5 or _as_word(form, self.joined))


def _as_word(form: bytes, text: bytes) -> bool:
    start = text.find(form)
    while start >= 0:
        end = start + len(form)
        before, after = text[start - 1 : start] if start else b"", text[end : end + 1]
        if not before.isalnum() and not after.isalnum():
            return True
        start = text.find(form, start + 1)
    return False


def _areas(
    source: Dataset,
    result: bytes,
    found: Sequence[Element],
    own: frozenset[bytes],
    allowed: Allowed,
) -> dict[Search, _Area]:
    areas = {search: _Area() for search in Search}
    for area in areas.values():
        area.values.append(result[:PREAMBLE])
    published = _published(found, result)
    encodings = _encodings(found, result)
    for element in found:
        value = result[element.start : element.end]
        if element.tag == PIXEL_DATA and len(element.path) == 1:
            pixels, value = _split_pixels(element, value, found, result)
            areas[Search.DATA].pixels.append(pixels)
        elif element.vr in _BINARY_VRS and len(value) > _SHORT_BINARY:
            areas[Search.DATA].pixels.append(value)
            continue
        value = b"\\".join(part for part in value.split(b"\\") if part.strip(b" \0") not in own)
        stripped = value.strip(b" \0")
        if not stripped:
            continue
        kept = _place(element) in allowed.kept
        cleaned = len(element.path) == 1 and (
            (element.tag, stripped.decode("latin-1")) in allowed.cleaned
        )
        if cleaned and element.vr in ("DA", "DT"):
            continue
        coded = element.item in published and element.tag in _CODED and not kept
        number = element.vr in ("DS", "IS")
        same = number and unchanged_number(source, element.path, stripped)
        searches = frozenset(_searches(element, same=same, coded=coded or cleaned, kept=kept))
        if element.vr in _SPELT_VRS:
            for part in value.split(b"\\"):
                for words in spelt(_decoded(part, encodings)):
                    bounded = f" {words} ".encode()
                    areas[Search.WORDS].values.append(bounded)
                    areas[Search.RUN].values.append(together(words).encode())
                    if Search.TEXT in searches:
                        areas[Search.TEXT_WORDS].values.append(bounded)
        for search in searches:
            areas[search].values.append(value)
            if element.vr in _TEXT_VRS or search is Search.UID:
                areas[search].whole.update(_components(value))
    for area in areas.values():
        area.joined = b"\0\0".join(area.values)
    return areas


def _place(element: Element) -> str:
    return "/".join(f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in element.path)


def _searches(element: Element, *, same: bool, coded: bool, kept: bool) -> Iterable[Search]:
    """Give the searches that look at an element; the reasons stand in the module's text."""
    yield Search.DATA
    if element.vr == "UI":
        yield Search.UID
        if kept:
            yield Search.IDENTITY
        return
    yield Search.UID
    if not same:
        yield Search.IDENTITY
    if not coded and element.vr not in ("CS", "DS", "IS"):
        yield Search.TEXT


def _encodings(found: Iterable[Element], result: bytes) -> list[str]:
    """Give the character sets that the result declares for itself, in pydicom's names."""
    for one in found:
        if one.path == (_CHARACTER_SET,):
            declared = result[one.start : one.end].decode("latin-1").strip(" \0").split("\\")
            try:
                return convert_encodings(declared)
            except (LookupError, ValueError, TypeError):
                raise NotSearchable("an unknown character set") from None
    return []


def _decoded(value: bytes, encodings: list[str]) -> str:
    """Give a value as text in the result's character set, or as Latin-1, which any bytes are."""
    if not value.isascii() or b"\x1b" in value:
        try:
            return decode_bytes(value, encodings, _DELIMITERS)
        except (LookupError, ValueError, TypeError):
            pass
    return value.decode("latin-1")


def _components(value: bytes) -> set[bytes]:
    parts = {value}
    for separator in (b"\\", b"=", b"^"):
        parts |= {piece for part in parts for piece in part.split(separator)}
    return {part.strip(b" \0") for part in parts}


def _published(found: Iterable[Element], result: bytes) -> frozenset[int]:
    """Give the items (see ``Element.item``) that hold a code of a published scheme."""
    schemes: set[int] = set()
    codes: set[int] = set()
    for one in found:
        if one.tag == _CODE_VALUE:
            codes.add(one.item)
        elif one.tag == _SCHEME:
            scheme = result[one.start : one.end].strip(b" \0").decode("latin-1")
            schemes.update({one.item} if scheme in PUBLIC_SCHEMES else ())
    return frozenset(schemes & codes)


def _in_numbers(sought: Iterable[Needle], result: bytes, found: Iterable[Element]) -> set[str]:
    """Give the tags whose digits are a number of the result, by the table in the module's text."""
    digits = digits_that_identify(sought)
    survivors: set[str] = set()
    for element in found:
        if element.vr in ("DS", "IS"):
            for number in _numbers(element, result[element.start : element.end]):
                survivors |= digits.get(number, frozenset())
    return survivors


def _numbers(element: Element, value: bytes) -> Iterator[str]:
    values = [significant_digits(part) for part in value.split(b"\\")]
    for number in values:
        if element.tag >> 16 != 0x0028 or number not in _WINDOWS:
            yield number
    joined = significant_digits(value)
    if len(values) > 1 and len(joined) >= _JOINED_DIGITS:
        yield joined


def _split_pixels(
    element: Element, value: bytes, found: Iterable[Element], result: bytes
) -> tuple[bytes, bytes]:
    """Give the pixels and what follows them in the same value."""
    if element.encapsulated:
        return value, b""
    described = {one.path[0]: one for one in found if len(one.path) == 1 and one.vr == "US"}
    sizes = []
    for tag in (_ROWS, _COLUMNS, _ALLOCATED, _SAMPLES):
        if tag not in described or described[tag].end - described[tag].start != 2:
            raise NotSearchable("pixel data of unknown size")
        start = described[tag].start
        sizes.append(int.from_bytes(result[start : start + 2], "little"))
    size = (sizes[0] * sizes[1] * sizes[2] * sizes[3] + 7) // 8
    return value[:size], value[size:]


def _in_pixels(sought: Iterable[Needle], haystacks: Iterable[bytes]) -> set[str]:
    forms: dict[bytes, set[str]] = {}
    for needle in sought:
        if needle.search in RESPELT:
            continue
        enough = min(needle.characters, len(needle.form)) >= _PIXEL_CHARACTERS
        if enough and len(set(needle.form)) >= _PIXEL_VARIETY:
            forms.setdefault(needle.form, set()).add(needle.origin)
    found: set[str] = set()
    for haystack in haystacks:
        for form in _occurring(forms, haystack):
            found |= forms[form]
    return found


def _occurring(forms: Collection[bytes], haystack: bytes) -> set[bytes]:
    """Give those of ``forms`` (12 bytes or more each) that occur in ``haystack``.

    One pass for all of them: a position stays a candidate while each of the six pairs of bytes
    from there on is the like pair of some form. What is left is compared in full.
    """
    bytes_ = np.frombuffer(haystack, dtype=np.uint8)
    last = len(bytes_) - _PIXEL_CHARACTERS
    if last < 0 or not forms:
        return set()
    pairs = bytes_[:-1].astype(np.uint16)
    pairs |= bytes_[1:].astype(np.uint16) << 8
    candidates: np.ndarray[tuple[int], np.dtype[np.intp]] | None = None
    for offset in range(0, _PIXEL_CHARACTERS, 2):
        known = np.zeros(2**16, dtype=bool)
        known[[int.from_bytes(form[offset : offset + 2], "little") for form in forms]] = True
        if candidates is None:
            candidates = np.flatnonzero(known[pairs[: last + 1]])
        else:
            candidates = candidates[known[pairs[candidates + offset]]]
    by_start: dict[bytes, list[bytes]] = {}
    for form in forms:
        by_start.setdefault(form[:_PIXEL_CHARACTERS], []).append(form)
    found: set[bytes] = set()
    for position in candidates.tolist() if candidates is not None else ():
        for form in by_start.get(haystack[position : position + _PIXEL_CHARACTERS], ()):
            if haystack.startswith(form, position):
                found.add(form)
    return found
