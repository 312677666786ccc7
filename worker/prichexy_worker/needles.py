"""The byte strings that would show a value: its text in several encodings, cases and notations.

A value is sought as its text in the source's own character sets, in UTF-8, UTF-16 and Latin-1, and
as what is left of it where these were mistaken for each other; names also by their components and
words, dates and times also as people write them. Re-spellings are forms of their own
(``respellings``), which are sought in decoded text only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from pydicom.charset import encode_string

from prichexy_worker.respellings import (
    MONTHS,
    spelt_date,
    spelt_name,
    spelt_number,
    words_of,
)

__all__ = [
    "RESPELT",
    "Needle",
    "Search",
    "of_bytes",
    "of_moment",
    "of_name",
    "of_number",
    "of_raw",
    "of_text",
    "of_uid",
    "of_words",
]


class Search(Enum):
    """How a value is sought; the release check says what that means for short values."""

    IDENTITY = "identity"  # names, numbers and dates of people, studies and devices
    TEXT = "text"  # any other text
    UID = "uid"
    DATA = "data"  # bytes that are no text
    # Re-spellings, in the words of text; see ``respellings``.
    WORDS = "words"  # of names, numbers and dates
    RUN = "run"  # the same, run together
    TEXT_WORDS = "text words"  # of any other text


RESPELT: Final = frozenset({Search.WORDS, Search.RUN, Search.TEXT_WORDS})


@dataclass(frozen=True, slots=True)
class Needle:
    """One byte string to seek, and where in the source it comes from.

    ``characters`` is how much it takes to hit it by chance: its length as text.
    """

    origin: str
    search: Search
    form: bytes = field(repr=False)
    characters: int


#: What stands in a field because nothing was known, in any case of letters. No name is meant.
_NOBODY: Final = frozenset(
    {"anonym", "anonymised", "anonymized", "anonymous", "de-identified", "deidentified", "no"}
    | {"none", "not applicable", "patient", "removed", "test", "unknown", "unnamed", "yes"}
)
_BETWEEN_WORDS: Final = re.compile(r"[\s\-',.^=]+")
#: Text within bytes: no control characters but escape, which begins an ISO 2022 character set.
_RUNS: Final = re.compile(rb"[\x20-\x5b\x5d-\x7e\x80-\xff\x1b]{4,}")
_LONGEST_RUN: Final = 1024
_LEAST_LEFT: Final = 4
_PROBE: Final = 24
_PROBES: Final = 16
_PROBE_VARIETY: Final = 6


def of_text(origin: str, search: Search, text: str, encodings: list[str]) -> Iterator[Needle]:
    """Give the forms of a text as it is; nothing where it only says that nothing is known."""
    text = text.strip(" \0\t")
    if _nobody(text):
        return
    forms: dict[bytes, int] = {}
    for shape in {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}:
        for codec in ("utf-16-le", "utf-16-be", "latin-1", "utf-8"):
            form = shape.encode(codec, "ignore")
            if form.decode(codec) == shape:
                # Every second byte of ASCII in UTF-16 is zero, and no harder to hit for it.
                forms[form] = len(shape) if shape.isascii() else len(form)
        if encodings and not shape.isascii():
            forms.update((form, len(form)) for form in _encoded(shape, encodings))
    forms.update((form, len(form)) for form in _spoilt(text))
    for form, characters in forms.items():
        yield Needle(origin, search, form, characters)


def of_name(origin: str, name: str, encodings: list[str]) -> Iterator[Needle]:
    """Give the forms of a person's name, of its groups, its components and their words."""
    groups = name.split("=")
    components = [component for group in groups for component in group.split("^")]
    words = [word for component in components for word in _BETWEEN_WORDS.split(component)]
    for piece in {name, *groups, *components, *words}:
        for cased in {piece, piece.upper(), piece.title()}:
            yield from of_text(origin, Search.IDENTITY, cased, encodings)
    for group in groups:
        if not _nobody(group.replace("^", " ")):
            yield from _respelt(origin, spelt_name(group))


def of_number(origin: str, value: str, *, telephone: bool) -> Iterator[Needle]:
    """Give the re-spellings of an identifier or a telephone number."""
    if not _nobody(value):
        yield from _respelt(origin, spelt_number(value, telephone=telephone))


def of_words(origin: str, text: str) -> Iterator[Needle]:
    """Give the re-spellings of any text as a whole."""
    if not _nobody(text):
        for words in words_of(text):
            yield _spelt_needle(origin, Search.TEXT_WORDS, words)


def of_moment(origin: str, vr: str, value: str) -> Iterator[Needle]:
    """Give the forms of a value of VR DA, DT or TM; nothing where all its digits are zero."""
    digits = re.sub(r"[.\-:/ ]", "", value) if vr == "DA" else value.replace(":", "")
    forms = {value}
    if vr in ("DA", "DT") and re.match(r"[0-9]{8}", digits):
        forms |= set(_dates(digits[:8]))
    time = digits[8:14] if vr == "DT" else digits[:6] if vr == "TM" else ""
    if re.fullmatch(r"[0-9]{6}", time) and time.strip("0"):
        forms |= {time, f"{time[:2]}:{time[2:4]}:{time[4:]}"}
    for form in forms:
        if form.strip(" 0.:-"):
            yield from of_text(origin, Search.IDENTITY, form, [])

    if vr in ("DA", "DT") and re.match(r"[0-9]{8}", digits) and digits[:8].strip("0"):
        yield from _respelt(origin, spelt_date(digits[:8]))


def of_uid(origin: str, uid: str) -> Iterator[Needle]:
    """Give the one form of a UID."""
    yield Needle(origin, Search.UID, uid.encode("utf-8", "replace"), len(uid))


def of_raw(origin: str, search: Search, raw: bytes) -> Iterator[Needle]:
    """Give bytes of text as they came, where ASCII cannot say them: they may not decode."""
    for value in {raw.strip(b" \0"), *(part.strip(b" \0") for part in raw.split(b"="))}:
        if len(value) >= 4 and (b"\x1b" in value or not value.isascii()):
            yield Needle(origin, search, value, len(value))


def of_bytes(origin: str, raw: bytes) -> Iterator[Needle]:
    """Give the runs of text in ``raw``, and probes of 24 bytes, at most about 16, spread over it.

    Bytes with less than six different values among 24 give no probe.
    """
    for match in _RUNS.finditer(raw):
        run = match.group().strip(b" \0")
        if 4 <= len(run) <= _LONGEST_RUN:
            yield Needle(origin, Search.TEXT, run, len(run))
    starts = range(0, max(1, len(raw) - _PROBE + 1), _PROBE)
    probes = (raw[start : start + _PROBE] for start in starts)
    useful = [probe for probe in probes if len(set(probe)) >= _PROBE_VARIETY]
    for probe in useful[:: max(1, len(useful) // _PROBES)]:
        yield Needle(origin, Search.DATA, probe, len(probe))


def _nobody(text: str) -> bool:
    return not text.strip(" \0\t") or text.strip(" \0\t").casefold() in _NOBODY


def _respelt(origin: str, forms: Iterator[tuple[str, bool]]) -> Iterator[Needle]:
    for form, run in forms:
        if form.strip() not in _NOBODY:
            yield _spelt_needle(origin, Search.RUN if run else Search.WORDS, form)


def _spelt_needle(origin: str, search: Search, form: str) -> Needle:
    return Needle(origin, search, form.encode(), len(form))


def _dates(digits: str) -> Iterator[str]:
    year, month, day = digits[:4], digits[4:6], digits[6:]
    yield digits
    for separator in "-./ ":
        for parts in ((year, month, day), (day, month, year), (month, day, year)):
            yield separator.join(parts)
    if 1 <= int(month) <= len(MONTHS):
        word = MONTHS[int(month) - 1][:3]
        for name in (word, word.upper()):
            for separator in (" ", "-", ""):
                yield separator.join((day, name, year))


def _spoilt(text: str) -> Iterator[bytes]:
    """Give what programs make of a text that is not ASCII when they mistake its character set.

    UTF-8 that was taken for Latin-1, or letters that are gone, or stand as "?" or U+FFFD. Where
    less than four letters and digits are left it could be any text.
    """
    if text.isascii():
        return
    yield text.encode("utf-8", "ignore").decode("latin-1").encode("utf-8")
    for lost in ("", "?", "\ufffd"):
        plain = "".join(one if one.isascii() else lost for one in text)
        if sum(one.isalnum() for one in plain) >= _LEAST_LEFT:
            yield plain.encode("utf-8")


def _encoded(text: str, encodings: list[str]) -> Iterator[bytes]:
    try:
        yield encode_string(text, encodings)
    except (LookupError, TypeError, ValueError):
        # The bytes as they came are sought besides.
        return
