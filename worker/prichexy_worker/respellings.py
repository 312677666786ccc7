"""Common re-spellings: a name, number or date that was written another way than the source has it.

Text and values are brought to one form, *words*: small letters without diacritics, numbers
without leading zeros, one space between. So "DOE, John", "doe-john" and "Doe^John" are the same,
and so are 07/04/1933 and 7.4.1933. Umlauts and their like are taken as both of their spellings:
Müller is also Muller and Mueller.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import permutations
from typing import Final

__all__ = ["MONTHS", "spelt", "spelt_date", "spelt_name", "spelt_number", "together", "words_of"]

MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
#: As words, in German, French, Spanish, Italian, Dutch and Portuguese where they are others.
_MONTHS_ELSEWHERE: Final = (
    "januar janvier enero gennaio januari janeiro",
    "februar fevrier febrero febbraio februari fevereiro",
    "marz maerz mrz mars marzo maart marco",
    "avril abril aprile",
    "mai mayo maggio mei maio",
    "juni juin junio giugno junho",
    "juli juillet julio luglio julho",
    "aout agosto augustus",
    "septembre septiembre settembre setembro",
    "oktober octobre octubre ottobre outubro",
    "novembre noviembre novembro",
    "dezember decembre diciembre dicembre dezembro",
)
_LETTERS: Final = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i"}
)
_DIGRAPHS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_CONTRACTED: Final = re.compile("(?<=[aou])e|(?<=a)a")
_NO_WORD: Final = re.compile(r"[\W_]+")
_LEADING_ZEROS: Final = re.compile(r"\b0+(?=[0-9])")
#: Between letters and digits, where some write a separator and some do not.
_SEAM: Final = re.compile(r"(?<=[^\W\d])(?=\d)|(?<=\d)(?=[^\W\d])")
_THREE_DIGITS: Final = re.compile("(.*[0-9]){3}")
#: A word of so many letters is sought within others, too, and numbers in any text run together.
_LONG: Final = 6
_SHORTEST: Final = 4
_LETTERS_RUN_TOGETHER: Final = 8
_MOST_WORDS: Final = 5
#: The end of a telephone number that is the same with and without the codes of area and country.
_SUBSCRIBER: Final = 8


def spelt(text: str) -> frozenset[str]:
    """Give a text as words, in both spellings of its umlauts; nothing where it has no word."""
    composed = unicodedata.normalize("NFC", text.casefold())
    forms = {_words(composed), _words(composed.translate(_DIGRAPHS))}
    return frozenset(forms - {""})


def together(words: str) -> str:
    """Give words as one."""
    return words.replace(" ", "")


def words_of(text: str) -> Iterator[str]:
    """Give what to seek for a whole text: itself as words, where that is long enough to tell."""
    for words in spelt(text):
        if len(words) >= _LETTERS_RUN_TOGETHER:
            yield words


def spelt_name(group: str) -> Iterator[tuple[str, bool]]:
    """Give what to seek for a name (one group of a PN, or as people write it): see ``_sought``.

    Each of its words; each two of them in both orders, one of them perhaps by its initial, apart
    or run together.
    """
    for spelling in spelt(group):
        for form in {spelling, _CONTRACTED.sub("", spelling)}:
            words = [word for word in form.split() if not word.isdigit()][:_MOST_WORDS]
            for word in words:
                yield from _sought(word)
            for one, two in permutations(words, 2):
                for pair in ((one, two), (one[0], two), (one, two[0])):
                    if max(map(len, pair)) > 1:
                        yield from _sought(" ".join(pair))


def spelt_number(value: str, *, telephone: bool = False) -> Iterator[tuple[str, bool]]:
    """Give what to seek for an identifier: with other separators or none, without leading zeros."""
    for words in spelt(value):
        yield from _sought(words)
        yield from _sought(_SEAM.sub(" ", words))
        whole = together(_words(value.casefold(), zeros=True))
        yield from _sought(whole)
        yield from _sought(whole.lstrip("0"))
        if telephone and whole.isdigit() and len(whole) > _SUBSCRIBER:
            yield from _sought(whole[-_SUBSCRIBER:])


def spelt_date(digits: str) -> Iterator[tuple[str, bool]]:
    """Give what to seek for a date, YYYYMMDD: in any order, with the month as number or word."""
    year, month, day = digits[:4], digits[4:6], digits[6:8]
    for parts in ((year, month, day), (day, month, year), (month, day, year)):
        yield from _sought(_words(" ".join(parts)))
        yield "".join(parts).lstrip("0"), True
    if 1 <= int(month) <= len(MONTHS):
        for text in _with_month_as_word(year, int(month), int(day)):
            yield f" {_words(text)} ", False


def _with_month_as_word(year: str, month: int, day: int) -> Iterator[str]:
    names = {MONTHS[month - 1].casefold(), *_MONTHS_ELSEWHERE[month - 1].split()}
    ending = "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    for word in names | {name[:3] for name in names}:
        for number in (str(day), f"{day}{ending}"):
            yield f"{number} {word} {year}"
            yield f"{word} {number} {year}"
            yield f"{year} {word} {number}"
        yield f"{day} de {word} de {year}"
    yield f"{year}\u5e74{month}\u6708{day}\u65e5"  # Chinese and Japanese
    yield f"{year}\ub144 {month}\uc6d4 {day}\uc77c"  # Korean


def _sought(words: str) -> Iterator[tuple[str, bool]]:
    """Give forms to seek, and whether in text that is run together.

    Words are sought with an end of a word on both sides, one word of six letters within others,
    too; what is run together where it is six characters with three digits, or eight, and as a word
    where it is shorter. Nothing of less than four characters.
    """
    if len(words) < _SHORTEST:
        return
    run = together(words)
    yield (words if run == words and len(run) >= _LONG else f" {words} "), False
    if len(run) >= (_LONG if _THREE_DIGITS.match(run) else _LETTERS_RUN_TOGETHER):
        yield run, True
    elif len(run) >= _SHORTEST and run != words:
        yield f" {run} ", False


def _words(text: str, *, zeros: bool = False) -> str:
    decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    plain = "".join(one for one in decomposed if not unicodedata.combining(one)).casefold()
    words = _NO_WORD.sub(" ", plain).strip()
    return words if zeros else _LEADING_ZEROS.sub("", words)
